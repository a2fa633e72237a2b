//! `O_DIRECT` where it is refused.

use polyaio::{Direct, Engine, Error, OpenOptions, Policy, Reason};

use crate::support::{Scratch, ramfs, require};
use crate::tools::Watchdog;
use crate::{auto, exercise, open};

/// ramfs refuses `O_DIRECT`: each wish has its answer.
#[test]
fn direct_io_that_is_refused() {
    let _watchdog = Watchdog::new("routing: direct_io_that_is_refused");
    let scratch = Scratch::new();
    let mount = require!(ramfs(&scratch.path("ramfs")));
    let (engine, path) = (auto(), mount.path("file"));
    let file = open(&engine, &path, Direct::Preferred);
    assert!(!file.facts().direct);
    assert_eq!(file.facts().direct_refused.map(|errno| errno.0), Some(libc::EINVAL));
    assert!(file.route().direct_refused);
    assert!(file.route().to_string().contains("O_DIRECT was refused by the file system: buffered"), "{}", file.route());
    assert_eq!(engine.stats().fallback(Reason::DirectRefused), 1);
    exercise(&engine, &file);

    let want = std::fs::read(&path).expect("written just now");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).direct(Direct::Required);
    let error = options.open(&engine, &path).expect_err("the file system refuses it");
    assert!(matches!(&error, Error::DirectRefused { file_system, .. } if file_system == "ramfs"), "{error:?}");
    let text = error.to_string();
    for part in ["file", "ramfs", "O_DIRECT", "Direct::Preferred"] {
        assert!(text.contains(part), "no {part} in: {text}");
    }
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(std::fs::read(&path).expect("still there"), want, "a refused open has cut the file");
    for new in [false, true] {
        let path = mount.path("never");
        let mut options = OpenOptions::new();
        options.write(true).create(true).create_new(new).direct(Direct::Required);
        let error = options.open(&engine, &path).expect_err("the file system refuses it");
        assert!(error.to_string().contains("never"), "{error}");
        assert!(!path.exists(), "a refused open (create_new: {new}) has left a file behind: {error:?}");
    }
    // Preferred, and made anew: the kernel has created it by the time that it refuses.
    for round in 0..2 {
        let path = mount.path("anew");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).direct(Direct::Preferred);
        match (round, options.open(&engine, &path)) {
            (0, Ok(file)) => exercise(&engine, &file),
            (1, Err(error)) => assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}"),
            (_, other) => panic!("round {round}: {other:?}"),
        }
    }
    // What is preferred is required where nothing may fall back.
    let strict = Engine::builder().policy(Policy::Auto).strict(true).build().expect("nothing is named");
    let mut options = OpenOptions::new();
    let error = options.write(true).create(true).direct(Direct::Preferred).open(&strict, mount.path("strictly"));
    assert!(matches!(error, Err(Error::DirectRefused { .. })), "{error:?}");
    assert!(!mount.path("strictly").exists());
    let buffered = open(&engine, &mount.path("buffered"), Direct::Off);
    assert!(!buffered.route().direct_refused && buffered.facts().direct_refused.is_none());
}

/// EINVAL has other causes: then nothing is said of direct I/O.
#[test]
fn other_refusals_at_open() {
    let _watchdog = Watchdog::new("routing: other_refusals_at_open");
    let scratch = Scratch::new();
    let engine = auto();
    for direct in [Direct::Off, Direct::Preferred, Direct::Required] {
        let mut options = OpenOptions::new();
        options.read(true).direct(direct);
        let error = options.open(&engine, scratch.path("missing")).expect_err("it is not there");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{direct:?}: {error:?}");
        options.write(true);
        let error = options.open(&engine, scratch.dir()).expect_err("a directory");
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR), "{direct:?}: {error:?}");
    }
    assert_eq!(engine.stats().total_fallbacks(), 0);
}
