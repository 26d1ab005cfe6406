use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn refused(path: &Path) -> String {
    read(path, &Rule::secret(100)).unwrap_err().to_string()
}

/// For what its owner may link to, and others may read.
const SETTINGS: Rule = Rule::given(0o022, 9);

#[test]
fn what_is_written_is_private_and_reads_back() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("a/fcp");
    let path = dir.join("secret");
    lock(&dir).unwrap().replace("secret", b"one").unwrap();
    lock(&dir).unwrap().replace("secret", b"two").unwrap();
    assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
    let found = read(&path, &Rule::secret(3)).unwrap().unwrap();
    assert!(found.bytes == b"two" && found.is_secret);
    let long = read(&path, &Rule::secret(2)).unwrap_err();
    assert!(matches!(long.fault, Fault::TooLong(2)), "{long}");
    assert!(read(&dir.join("none"), &Rule::secret(3)).unwrap().is_none());
}

#[test]
fn what_is_there_is_not_created_again_and_no_temporary_file_stays() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("new/key");
    create(&path, b"one").unwrap();
    assert_eq!(create(&path, b"two").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"one".to_vec()));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_was_left_by_one_that_was_killed_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join(".secret.new");
    fs::write(&left, "half").unwrap();
    lock(dir.path()).unwrap().replace("secret", b"one").unwrap();
    assert!(!left.exists() && fs::read(dir.path().join("secret")).unwrap() == b"one");
}

#[test]
fn a22_loose_linked_and_odd_files_are_refused_and_the_text_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "x").unwrap();
    for mode in [0o644, 0o640, 0o604, 0o660, 0o620, 0o610] {
        chmod(&path, mode);
        let text = refused(&path);
        assert!(text.contains("chmod 600") && text.contains("secret'"), "{text}");
    }
    chmod(&path, 0o600);
    assert!(read(&path, &Rule::secret(1)).is_ok());
    chmod(dir.path(), 0o770);
    assert!(refused(&path).contains("chmod 700"));
    assert!(lock(dir.path()).unwrap_err().to_string().contains("chmod 700"));
    chmod(dir.path(), 0o700);

    let link = dir.path().join("link");
    symlink("secret", &link).unwrap();
    assert!(refused(&link).contains("symbolic link"));
    let dangling = dir.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    assert!(refused(&dangling).contains("symbolic link"));
    assert!(refused(dir.path()).contains("not a regular file"));
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    assert!(refused(&fifo).contains("not a regular file"));
}

#[test]
fn settings_may_be_links_and_read_by_others_but_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("settings"), dir.path().join("link"));
    fs::write(&path, "x").unwrap();
    symlink("settings", &link).unwrap();
    chmod(&path, 0o644);
    assert!(!read(&link, &SETTINGS).unwrap().unwrap().is_secret);
    for mode in [0o664, 0o646] {
        chmod(&path, mode);
        let text = read(&link, &SETTINGS).unwrap_err().to_string();
        assert!(text.contains("others can write it") && text.contains("chmod go-w"), "{text}");
    }
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    assert!(read(&dir.path().join("dangling"), &SETTINGS).unwrap().is_none());
    assert!(read(dir.path(), &SETTINGS).unwrap_err().to_string().contains("regular file"));
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from(0o600)).unwrap();
    let add = append(&fifo, &SETTINGS, |_| Ok::<_, PrivateError>("x".to_owned()));
    assert!(add.unwrap_err().to_string().contains("regular file"));
}

#[test]
fn a22_a_file_or_directory_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "x").unwrap();
    chmod(&path, 0o600);
    std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
    let texts = [refused(&path), read(&path, &SETTINGS).unwrap_err().to_string()];
    for text in texts {
        assert!(text.contains("uid 4242") && text.contains("secret'"), "{text}");
    }
    std::os::unix::fs::chown(dir.path(), Some(4242), None).unwrap();
    require_own_dir(dir.path()).unwrap_err();
    lock(dir.path()).unwrap_err();
    open_log(&dir.path().join("log"), 1).unwrap_err();
}

#[test]
fn a_directory_for_sockets_is_real_ours_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let [own, open, link, file] = ["own", "open", "link", "file"].map(|name| dir.path().join(name));
    require_own_dir(&own).unwrap_err();
    own_dir(&own).unwrap();
    own_dir(&own).unwrap();
    assert_eq!(mode(&own), 0o700);
    fs::create_dir(&open).unwrap();
    symlink(&own, &link).unwrap();
    fs::write(&file, "").unwrap();
    for mode in [0o755, 0o770, 0o701] {
        chmod(&open, mode);
        own_dir(&open).unwrap_err();
    }
    for bad in [&link, &file, &dir.path().join("missing/own")] {
        assert!(own_dir(bad).is_err(), "{bad:?}");
    }
    let [.., temporary] = &*runtime_dirs(Some(dir.path())) else { panic!("no directory") };
    assert!(temporary.starts_with("/tmp"), "{temporary:?}");
}

#[test]
fn the_log_is_private_and_follows_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fcp/fcpd.log");
    open_log(&path, 9).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    fs::remove_file(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    open_log(&path, 9).unwrap_err();
    assert!(!path.with_file_name("elsewhere").exists());
    open_log(Path::new("/dev/null"), 9).unwrap_err();
}

#[test]
fn a_long_log_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fcp/fcpd.log");
    open_log(&path, 9).unwrap().set_len(10).unwrap();
    assert_eq!(open_log(&path, 9).unwrap().metadata().unwrap().len(), 0);
    assert_eq!(fs::metadata(path.with_extension("log.1")).unwrap().len(), 10);
}
