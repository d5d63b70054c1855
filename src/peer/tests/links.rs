//! What callers of a link can rely on.

use super::*;
use crate::peer::{CallError, LinkState};
use tokio::io::AsyncWriteExt;

/// Lets everything that can go on without time passing go on.
async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_at_a_time_each_get_their_own_answer() {
    let (link, echo) = connected(Class::Checks).await;
    let calls = (0..10_000u32).map(|i| {
        let link = link.clone();
        tokio::spawn(async move {
            // Some at once, some up to 250 ms later: answers come in another order than questions
            // went.
            let kind = if i % 3 == 0 { NOW } else { LATER };
            let bytes = Bytes::from([i.to_be_bytes().as_slice(), &[(i % 251) as u8]].concat());
            let request = Opaque { kind, bytes };
            let answer = link.call(request.clone(), SECOND).await;
            assert_eq!(answer.unwrap(), request);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!((link.in_flight(), echo.handled.load(Ordering::Relaxed)), (0, 10_000));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_leaves_nothing_behind_at_either_end() {
    let (link, echo) = connected(Class::Checks).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.call(opaque(NEVER, "x"), SECOND * 60).await })
        })
        .collect();
    settle().await;
    assert_eq!((link.in_flight(), echo.handling.load(Ordering::Relaxed)), (100, 100));
    calls.iter().for_each(JoinHandle::abort);
    settle().await;
    assert_eq!((link.in_flight(), echo.handling.load(Ordering::Relaxed)), (0, 0));
    assert!(link.call(opaque(NOW, "next"), SECOND).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_late_ends_with_its_deadline_and_the_peer_is_told() {
    let mut dialled = dial(Class::Checks);
    let (mut reader, _writer) = played(&mut dialled.listener).await;
    let link = dialled.link;
    let call = tokio::spawn({
        let link = link.clone();
        async move { link.call(opaque(NOW, "x"), Duration::from_millis(30)).await }
    });
    let request = frame(&mut reader).await.unwrap();
    assert_eq!((request.kind, request.ttl_us), (FrameKind::Request, 30_000));
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::DeadlinePassed(_)) && !error.was_not_handled(), "{error}");
    let cancel = frame(&mut reader).await.unwrap();
    assert_eq!((cancel.kind, cancel.id), (FrameKind::Cancel, request.id));
    assert_eq!(link.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_time_in_the_queue_is_taken_from_what_a_call_has_left() {
    let manual = ManualClock::default();
    let pipes = Pipes::default();
    let mut listener = pipes.listen("n2");
    let (dial, chance) = (pipes.dial("n2").unwrap(), Seed::from_number(1).fork("links", 0));
    let (us, clock) = (identity("n1"), Arc::new(manual.clone()));
    let (link, driver) = crate::peer::link(LinkArgs {
        us,
        guard: Default::default(),
        peer: name("n2"),
        class: Class::Checks,
        dial,
        clock,
        chance,
        breaker: None,
    });
    tokio::spawn(driver);
    let (mut reader, _writer) = played(&mut listener).await;
    link.connected().await;
    settle().await;
    let mut late = Box::pin(link.call(opaque(NOW, "late"), Duration::from_millis(30)));
    let mut lost = Box::pin(link.call(opaque(NOW, "lost"), Duration::from_millis(10)));
    assert!(
        futures_util::poll!(&mut lost).is_pending() && futures_util::poll!(&mut late).is_pending()
    );
    manual.advance(20 * crate::clock::MS);
    let request = frame(&mut reader).await.unwrap();
    // What can't arrive in time isn't sent.
    assert_eq!((&request.body[..], request.ttl_us), (&b"late"[..], 10_000));
}

#[tokio::test(start_paused = true)]
async fn beyond_its_bound_a_link_is_busy_at_once() {
    let mut dialled = dial(Class::Bulk);
    let (_reader, _writer) = played(&mut dialled.listener).await;
    dialled.link.connected().await;
    let mut calls: Vec<_> = (0..Class::Bulk.calls_max())
        .map(|_| Box::pin(dialled.link.call(opaque(NOW, "x"), SECOND)))
        .collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    let one_more = dialled.link.call(opaque(NOW, "x"), SECOND);
    tokio::pin!(one_more);
    let std::task::Poll::Ready(Err(error)) = futures_util::poll!(one_more) else {
        panic!("it waits")
    };
    assert!(matches!(error, CallError::Busy(_)) && error.was_not_handled(), "{error}");
    drop(calls);
    settle().await;
    assert_eq!(dialled.link.in_flight(), 0);
    let mut call = Box::pin(dialled.link.call(opaque(NOW, "x"), SECOND));
    assert!(futures_util::poll!(&mut call).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dies_fails_all_calls_on_it_together() {
    let mut dialled = dial(Class::Checks);
    let (mut reader, writer) = played(&mut dialled.listener).await;
    let link = dialled.link;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.call(opaque(NOW, "x"), SECOND * 3_600).await })
        })
        .collect();
    for _ in 0..50 {
        frame(&mut reader).await.unwrap();
    }
    // Half a frame, and then nothing: as a process ends that is killed while it writes.
    let mut stream = reader.into_inner().unsplit(writer.into_inner());
    stream.write_all(&[0, 0, 0, 50, b'T']).await.unwrap();
    drop((stream, dialled.listener));
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Lost(_)) && !error.was_not_handled(), "{error}");
    }
    assert_eq!(link.in_flight(), 0);
    let error = link.call(opaque(NOW, "x"), SECOND).await.unwrap_err();
    assert!(matches!(error, CallError::NotConnected(_)) && error.was_not_handled(), "{error}");
    assert!(
        matches!(link.state(), LinkState::Connecting { why: Some(_), .. }),
        "{:?}",
        link.state()
    );
}

#[tokio::test(start_paused = true)]
async fn a_link_comes_back_by_itself_and_numbers_go_on() {
    let mut dialled = dial(Class::Checks);
    let link = dialled.link.clone();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (mut reader, mut writer) = played(&mut dialled.listener).await;
        link.connected().await;
        let mut call = Box::pin(link.call(opaque(NOW, "x"), SECOND));
        assert!(futures_util::poll!(&mut call).is_pending());
        let request = frame(&mut reader).await.unwrap();
        ids.push(request.id);
        writer.send(opaque(NOW, "y").reply(request.id)).await.unwrap();
        assert_eq!(call.await.unwrap(), opaque(NOW, "y"));
        drop((reader, writer));
        let mut states = link.states();
        states.wait_for(|state| matches!(state, LinkState::Connecting { .. })).await.unwrap();
    }
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_silent_is_given_up_and_dialled_again() {
    let mut dialled = dial(Class::Checks);
    let _held = played(&mut dialled.listener).await;
    dialled.link.connected().await;
    let call = dialled.link.call(opaque(NOW, "x"), SECOND * 60);
    let error =
        tokio::time::timeout(Class::Checks.silence_max() * 3 / 2, call).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Lost(_)), "{error}");
    let _again = played(&mut dialled.listener).await;
    dialled.link.connected().await;
    assert_eq!(dialled.dials.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_link_stays_up() {
    let (link, _echo) = connected(Class::Checks).await;
    tokio::time::sleep(SECOND * 60).await;
    assert!(link.call(opaque(NOW, "x"), SECOND).await.is_ok());
    let LinkState::Connected { version: 1, boot: BootId(7), .. } = link.state() else {
        panic!("{:?}", link.state())
    };
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_isnt_there_is_dialled_ever_more_rarely_down_to_once_a_second() {
    let dialled = dial(Class::Checks);
    drop(dialled.listener);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let first = dialled.dials.load(Ordering::Relaxed);
    assert!((4..=8).contains(&first), "{first} dials in the first 1.5 s");
    tokio::time::sleep(SECOND * 100).await;
    let later = dialled.dials.load(Ordering::Relaxed) - first;
    assert!((100..=200).contains(&later), "{later} dials in 100 s");
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_with_the_last_link() {
    let dialled = dial(Class::Checks);
    let clone = dialled.link.clone();
    drop(dialled.link);
    settle().await;
    assert!(!dialled.driver.is_finished());
    drop(clone);
    dialled.driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_peer_refuses_says_why() {
    let us = Identity { cluster: name("prod"), ..identity("n1") };
    let Dialled { link, listener, .. } = dial_as(us, Class::Checks);
    let _echo = serve_echo(listener);
    let mut states = link.states();
    let state =
        states.wait_for(|state| matches!(state, LinkState::Connecting { why: Some(_), .. })).await;
    let LinkState::Connecting { why: Some(why), .. } = state.unwrap().clone() else { panic!() };
    assert_eq!(why, "the peer refused: it belongs to the cluster prod, this is the cluster demo");
}

#[tokio::test(start_paused = true)]
async fn a_link_to_a_peer_that_has_to_prove_itself_by_now_ends() {
    let guard = guard_with("n2");
    let Dialled { link, listener, .. } = dial_with(identity("n1"), guard.clone(), Class::Checks);
    let _echo = serve_echo(listener);
    link.connected().await;
    tokio::time::sleep(SECOND * 60).await;
    assert!(link.call(opaque(NOW, "x"), SECOND).await.is_ok());
    guard.may_be_older(Default::default());
    let mut states = link.states();
    let state =
        states.wait_for(|state| matches!(state, LinkState::Connecting { why: Some(_), .. })).await;
    let LinkState::Connecting { why: Some(why), .. } = state.unwrap().clone() else { panic!() };
    assert!(why.contains("node n2 gives no proof that it knows the peer secret"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_too_long_are_refused_where_they_are_made() {
    let (link, _echo) = connected(Class::Checks).await;
    let long = Opaque { kind: NOW, bytes: vec![0; 1 << 20].into() };
    let error = link.call(long, SECOND).await.unwrap_err();
    assert!(matches!(error, CallError::TooLong { .. }) && error.was_not_handled(), "{error}");
    let error = link.call(opaque(LARGE, ""), SECOND).await.unwrap_err();
    assert!(error.to_string().contains("2097152 bytes, more than fit"), "{error}");
    assert!(link.call(opaque(NOW, "x"), SECOND).await.is_ok());
}
