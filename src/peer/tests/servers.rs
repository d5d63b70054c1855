//! What a peer that is served can do, and can't.

use super::*;
use crate::net::{Plain, PlainListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An n1 that is played frame by frame against an n2 that serves.
struct Played {
    reader: Reader<DuplexStream>,
    writer: Writer<DuplexStream>,
    echo: Arc<Echo>,
}

async fn play(class: Class) -> Played {
    let pipes = Pipes::default();
    let echo = serve_echo(pipes.listen("n2"));
    let stream = pipes.dial("n2").unwrap().dial().await.unwrap();
    let (mut reader, mut writer) = handshake::framed(stream);
    let us = Us { identity: &identity("n1"), guard: &Guard::default() };
    handshake::call(&mut reader, &mut writer, us, None, class, &name("n2")).await.unwrap();
    Played { reader, writer, echo }
}

fn request(id: u64, kind: Kind, ttl: Duration) -> Frame {
    Frame { ttl_us: u32::try_from(ttl.as_micros()).unwrap(), ..opaque(kind, "x").request(id) }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_late_is_dropped_where_it_is_handled() {
    let Played { mut reader, mut writer, echo } = play(Class::Checks).await;
    writer.send(request(1, NEVER, Duration::from_millis(30))).await.unwrap();
    writer.send(request(2, NOW, Duration::ZERO)).await.unwrap();
    for id in [2, 1] {
        let failure = frame(&mut reader).await.unwrap();
        assert_eq!((failure.id, Failure::of(&failure)), (id, Failure::DeadlinePassed));
    }
    assert_eq!(echo.handling.load(Ordering::Relaxed), 0);
    assert_eq!(echo.handled.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn beyond_its_bound_a_connection_gets_busy_for_an_answer_and_the_rest_goes_on() {
    let Played { mut reader, mut writer, .. } = play(Class::Bulk).await;
    let most = Class::Bulk.calls_max() as u64;
    for id in 1..=most + 1 {
        writer.send(request(id, NEVER, SECOND * 60)).await.unwrap();
    }
    let busy = frame(&mut reader).await.unwrap();
    assert_eq!((busy.id, Failure::of(&busy)), (most + 1, Failure::Busy));
    writer.send(Frame::bare(FrameKind::Cancel, 3)).await.unwrap();
    writer.send(request(most + 2, NOW, SECOND)).await.unwrap();
    let answer = frame(&mut reader).await.unwrap();
    assert_eq!((answer.id, answer.kind), (most + 2, FrameKind::Answer));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_answers_is_not_read_from_and_in_the_end_given_up() {
    let Played { reader, mut writer, echo } = play(Class::Checks).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let asking = asked.clone();
    let asker = tokio::spawn(async move {
        for id in 1.. {
            let mut large = request(id, NOW, SECOND * 60);
            large.body = vec![0; 1 << 10].into();
            if writer.send(large).await.is_err() {
                return;
            }
            asking.fetch_add(1, Ordering::Relaxed);
        }
    });
    tokio::time::sleep(SECOND).await;
    let (handled, most) = (echo.handled.load(Ordering::Relaxed), asked.load(Ordering::Relaxed));
    // The answers that wait, those in its buffer and in both pipes; a megabyte and a little.
    assert!((1_000..1_500).contains(&handled), "{handled} handled");
    assert!(most < 1_600, "{most} asked");
    // It ends although the peer's end of the pipe is still held.
    asker.await.unwrap();
    drop(reader);
}

#[tokio::test(start_paused = true)]
async fn what_breaks_the_rules_ends_the_connection() {
    let out_of_place = [
        vec![Frame::bare(FrameKind::Hello, 0)],
        vec![Frame::bare(FrameKind::Answer, 1)],
        vec![request(1, NEVER, SECOND), request(1, NEVER, SECOND)],
    ];
    for frames in out_of_place {
        let Played { mut reader, mut writer, echo } = play(Class::Checks).await;
        for frame in frames {
            writer.send(frame).await.unwrap();
        }
        assert_eq!(frame(&mut reader).await, None);
        assert_eq!(echo.handling.load(Ordering::Relaxed), 0);
    }
    let giant = (2u32 << 20).to_be_bytes();
    for bytes in [
        &giant[..],
        b"\0\0\0\x12XX",
        &[0, 0, 0, 18, b'T', b'G', 9, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let Played { reader, writer, .. } = play(Class::Checks).await;
        let mut stream = reader.into_inner().unsplit(writer.into_inner());
        stream.write_all(bytes).await.unwrap();
        let shut = stream.shutdown().await;
        assert_eq!(
            (shut.is_ok(), stream.read(&mut [0; 64]).await.unwrap()),
            (true, 0),
            "{bytes:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_silent_is_given_up_with_what_it_had_asked() {
    let Played { reader: mut from, mut writer, echo } = play(Class::Checks).await;
    writer.send(request(1, NEVER, SECOND * 60)).await.unwrap();
    assert_eq!(tokio::time::timeout(SECOND * 3, frame(&mut from)).await.unwrap(), None);
    assert_eq!(echo.handling.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_refused_before_it_can_ask() {
    for speech in [&b"GET / HTTP/1.1\r\nhost: n2\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]] {
        let pipes = Pipes::default();
        let _echo = serve_echo(pipes.listen("n2"));
        let mut stream = pipes.dial("n2").unwrap().dial().await.unwrap();
        stream.write_all(speech).await.unwrap();
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
    }
    let pipes = Pipes::default();
    let _echo = serve_with(pipes.listen("n2"), Echo { strangers: true, ..Echo::default() });
    let stream = pipes.dial("n2").unwrap().dial().await.unwrap();
    let (mut reader, mut writer) = handshake::framed(stream);
    let us = Us { identity: &identity("n1"), guard: &Guard::default() };
    let called =
        handshake::call(&mut reader, &mut writer, us, None, Class::Raft, &name("n2")).await;
    assert_eq!(
        called.unwrap_err().to_string(),
        "the peer refused: node n1 is no member of this cluster"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_to_prove_itself_by_now_is_cut_off() {
    let (pipes, guard) = (Pipes::default(), guard_with("n1"));
    let (echo, serving, listener) = (Arc::new(Echo::default()), guard.clone(), pipes.listen("n2"));
    let handling = echo.clone();
    tokio::spawn(async move {
        let (_stop, never) = watch::channel(false);
        serve_guarded(listener, handling, serving, never).await;
    });
    let stream = pipes.dial("n2").unwrap().dial().await.unwrap();
    let (mut reader, mut writer) = handshake::framed(stream);
    let us = Us { identity: &identity("n1"), guard: &Guard::default() };
    handshake::call(&mut reader, &mut writer, us, None, Class::Checks, &name("n2")).await.unwrap();
    writer.send(request(1, NOW, SECOND)).await.unwrap();
    assert_eq!(frame(&mut reader).await.unwrap().kind, FrameKind::Answer);
    guard.may_be_older(Default::default());
    writer.send(request(2, NOW, SECOND)).await.unwrap();
    assert_eq!(frame(&mut reader).await.unwrap().kind, FrameKind::Refusal);
    assert_eq!(frame(&mut reader).await, None);
    assert_eq!(echo.handled.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_was_accepted_and_takes_no_more() {
    let Dialled { link, listener, .. } = dial(Class::Checks);
    let (echo, (stop, stopped)) = (Arc::new(Echo::default()), watch::channel(false));
    let serving = tokio::spawn(serve(listener, echo.clone(), stopped));
    link.connected().await;
    let mut call = Box::pin(link.call(opaque(LATER, "\x64"), SECOND));
    assert!(futures_util::poll!(&mut call).is_pending());
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(true).unwrap();
    assert_eq!(call.await.unwrap(), opaque(LATER, "\x64"));
    serving.await.unwrap();
    assert!(link.call(opaque(NOW, "x"), SECOND).await.is_err());
    assert_eq!(echo.handled.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_many_threads_share_a_link_over_a_socket() {
    let listener = PlainListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let dial = Plain::default().dial(&listener.local_addr().unwrap().to_string()).unwrap();
    let echo = serve_echo(listener);
    let (us, chance) = (identity("n1"), Seed::from_number(1).fork("links", 0));
    let args = LinkArgs {
        us,
        guard: Default::default(),
        peer: name("n2"),
        class: Class::Checks,
        dial,
        clock: clock(),
        chance,
        breaker: None,
    };
    let (link, driver) = crate::peer::link(args);
    tokio::spawn(driver);
    link.connected().await;
    let callers = (0..16).map(|caller| {
        let link = link.clone();
        tokio::spawn(async move {
            for i in 0..200 {
                let request = opaque(NOW, &format!("{caller}.{i}"));
                assert_eq!(link.call(request.clone(), SECOND * 30).await.unwrap(), request);
                // Every other one is taken back at once, at whatever point it has reached.
                drop(
                    tokio::time::timeout(
                        Duration::ZERO,
                        link.call(opaque(NEVER, "x"), SECOND * 30),
                    )
                    .await,
                );
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!((link.in_flight(), echo.handled.load(Ordering::Relaxed)), (0, 3_200));
}
