//! A file of saved counts is loaded once, and only if it is whole.

mod golden;

use super::*;

#[test]
fn a_file_is_loaded_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let saved = SavedState::at(Now { boot: 5, wall: 9 });
    save(&path, &saved).unwrap();
    let now = Now { boot: 5, wall: 9 };
    assert_eq!(read(&path, now).unwrap().as_ref(), Some(&saved));
    assert_eq!(load(&path, now).unwrap(), Some(saved));
    assert_eq!(load(&path, now).unwrap(), None);
}

#[test]
fn a_damaged_file_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    save(&path, &SavedState::at(Now::default())).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(load(&path, Now::default()).is_err());
    assert!(path.exists());
}
