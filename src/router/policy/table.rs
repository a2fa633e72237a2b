//! The policy table of `docs/backends.md`, cell by cell.

use super::*;
use crate::backend::OpSet;
use crate::completion::Errno;

const KERNEL: u8 = 0;
const POSIX: u8 = 1;
const POOL: u8 = 2;
const OWN: u8 = 3;

fn candidates() -> Vec<Candidate> {
    let transfers = OpSet::NONE.with(OpKind::Read).with(OpKind::Write).with(OpKind::SyncAll).with(OpKind::SyncData);
    let make = |name, operations, serves, nowait, automatic| {
        let capabilities = Capabilities { operations, serves, nowait, ..Capabilities::new(16) };
        Candidate { name, capabilities, automatic, missing: None }
    };
    vec![
        make("kernel-aio", transfers, Serves::Direct, true, true),
        make("posix-aio", transfers, Serves::Seekable, false, false),
        make("thread-pool", OpSet::ALL, Serves::Any, false, true),
        make("own", OpSet::ALL, Serves::OwnFiles, false, false),
    ]
}

fn settings(policy: &Policy) -> Settings {
    Settings::new(candidates(), policy, false, false).expect("the policy names known backends")
}

fn regular(direct: bool) -> Facts {
    Facts {
        kind: FileKind::Regular,
        direct,
        append: false,
        readable: true,
        writable: true,
        seekable: true,
        file_system: FileSystem::Ext4,
        alignment: None,
        direct_refused: None,
        emulated: None,
        len: 0,
    }
}

fn of_kind(kind: FileKind) -> Facts {
    let seekable = matches!(kind, FileKind::Regular | FileKind::Block);
    Facts { kind, seekable, file_system: FileSystem::Unknown, ..regular(false) }
}

/// The steps of a plan, `(backend, nowait)`, and its inline path.
fn cell(facts: &Facts, class: Class, policy: &Policy) -> (Inline, Vec<(u8, bool)>) {
    let plan = plan(facts, None, class, &settings(policy));
    (plan.inline, plan.steps.iter().map(|step| (step.backend, step.nowait)).collect())
}

fn prefer(name: &str) -> Policy {
    Policy::Prefer(vec![name.to_owned()])
}

#[test]
fn automatic() {
    const POOL_ONLY: &[(u8, bool)] = &[(POOL, false)];
    const NOWAIT_FIRST: &[(u8, bool)] = &[(KERNEL, true), (POOL, false)];
    const KERNEL_FIRST: &[(u8, bool)] = &[(KERNEL, false), (POOL, false)];
    let block = Facts { direct: true, ..of_kind(FileKind::Block) };
    let append = Facts { append: true, ..regular(true) };
    type Row = (&'static str, Facts, Class, Inline, &'static [(u8, bool)]);
    let table: &[Row] = &[
        ("direct file, read", regular(true), Class::Read, Inline::Never, NOWAIT_FIRST),
        ("direct file, write", regular(true), Class::Write, Inline::Never, NOWAIT_FIRST),
        ("direct file, sync", regular(true), Class::Sync, Inline::Never, KERNEL_FIRST),
        ("direct file, position", regular(true), Class::Position, Inline::Never, POOL_ONLY),
        ("direct file, metadata", regular(true), Class::Meta, Inline::Never, POOL_ONLY),
        ("direct append, read", append.clone(), Class::Read, Inline::Never, NOWAIT_FIRST),
        ("direct append, write", append.clone(), Class::Write, Inline::Never, POOL_ONLY),
        ("direct block device, read", block.clone(), Class::Read, Inline::Never, NOWAIT_FIRST),
        ("direct block device, write", block.clone(), Class::Write, Inline::Never, NOWAIT_FIRST),
        ("buffered block device, read", of_kind(FileKind::Block), Class::Read, Inline::Never, POOL_ONLY),
        ("buffered file, read", regular(false), Class::Read, Inline::PageCache(INLINE_CACHE_MAX), POOL_ONLY),
        ("buffered file, write", regular(false), Class::Write, Inline::Never, POOL_ONLY),
        ("buffered file, sync", regular(false), Class::Sync, Inline::Never, KERNEL_FIRST),
        ("directory, sync", of_kind(FileKind::Directory), Class::Sync, Inline::Never, POOL_ONLY),
    ];
    for (name, facts, class, inline, steps) in table {
        assert_eq!(cell(facts, *class, &Policy::Auto), (*inline, steps.to_vec()), "{name}");
    }
    for kind in [FileKind::Pipe, FileKind::Fifo, FileKind::Socket, FileKind::Tty, FileKind::Anonymous] {
        for class in Class::ALL {
            let expected = (Inline::Never, POOL_ONLY.to_vec());
            assert_eq!(cell(&of_kind(kind), class, &Policy::Auto), expected, "{kind}, {class:?}");
        }
    }
}

#[test]
fn files_in_memory() {
    let tmpfs = Facts { file_system: FileSystem::Tmpfs, ..regular(false) };
    let ramfs = Facts { file_system: FileSystem::Ramfs, ..regular(false) };
    let inline =
        |facts: &Facts, class, swap| plan(facts, None, class, &Settings { swap, ..settings(&Policy::Auto) }).inline;
    for class in [Class::Read, Class::Write] {
        assert_eq!(inline(&tmpfs, class, false), Inline::Memory(INLINE_MEMORY_MAX));
        assert_eq!(inline(&ramfs, class, true), Inline::Memory(INLINE_MEMORY_MAX));
    }
    assert_eq!(inline(&tmpfs, Class::Read, true), Inline::PageCache(INLINE_CACHE_MAX), "swapped pages have to be read");
    assert_eq!(inline(&tmpfs, Class::Write, true), Inline::Never);
    let direct = Facts { direct: true, ..tmpfs };
    assert_eq!(cell(&direct, Class::Write, &Policy::Auto).1, [(POOL, false)], "it accepts O_DIRECT, and copies");
    let append = Facts { append: true, ..ramfs };
    assert_eq!(inline(&append, Class::Write, false), Inline::Never, "appends keep their order");
}

#[test]
fn preferred() {
    let kernel = prefer("kernel-aio");
    let steps = |facts: &Facts, class, policy: &Policy| cell(facts, class, policy).1;
    assert_eq!(cell(&regular(false), Class::Read, &kernel), (Inline::Never, vec![(KERNEL, true), (POOL, false)]));
    assert_eq!(steps(&regular(false), Class::Write, &kernel), [(POOL, false)]);
    assert_eq!(steps(&of_kind(FileKind::Pipe), Class::Position, &kernel), [(POOL, false)]);
    let pool = prefer("thread-pool");
    assert_eq!(cell(&regular(true), Class::Read, &pool), (Inline::Never, vec![(POOL, false), (KERNEL, true)]));
    assert_eq!(cell(&regular(false), Class::Read, &pool), (Inline::Never, vec![(POOL, false)]));
    let posix = prefer("posix-aio");
    assert_eq!(steps(&regular(false), Class::Write, &posix), [(POSIX, false), (POOL, false)]);
    assert_eq!(steps(&of_kind(FileKind::Socket), Class::Position, &posix), [(POOL, false)]);
}

#[test]
fn required() {
    let kernel = Policy::Require("kernel-aio".to_owned());
    let steps = |facts: &Facts, class| cell(facts, class, &kernel).1;
    assert_eq!(steps(&regular(true), Class::Read), [(KERNEL, true)]);
    assert_eq!(steps(&regular(false), Class::Write), [], "nothing else may write");
    assert_eq!(steps(&regular(true), Class::Meta), [(POOL, false)], "nobody else closes files");
    let strict = Settings::new(candidates(), &prefer("kernel-aio"), true, false).expect("a known name");
    assert!(strict.required, "strict makes a preference a requirement");
    let automatic = Settings::new(candidates(), &Policy::Auto, true, false).expect("no name");
    assert!(!automatic.required, "nothing was named");
}

#[test]
fn what_is_passed_over_says_why() {
    let mut settings = settings(&prefer("posix-aio"));
    settings.candidates[usize::from(POSIX)].missing = Some("no luck".into());
    let passed = plan(&regular(false), None, Class::Write, &settings).passed;
    assert_eq!(passed[0], (POSIX, Why::NotStarted("no luck".into())));
    assert_eq!(passed[1], (KERNEL, Why::BufferedWouldBlock));
    let (refused, errno) = (Why::Demoted(Errno(libc::EINVAL)).to_string(), Errno(libc::EINVAL).to_string());
    assert!(refused.contains(&errno), "{refused}");
}

#[test]
fn a_virtual_file_is_served_by_its_backend_alone() {
    let facts = Facts::of_virtual(1);
    for class in Class::ALL {
        let plan = plan(&facts, Some(OWN), class, &settings(&Policy::Auto));
        let steps: Vec<_> = plan.steps.iter().map(|step| step.backend).collect();
        assert_eq!(steps, [OWN], "{class:?}");
    }
    let other = plan(&regular(true), None, Class::Read, &settings(&prefer("own")));
    assert_eq!(other.passed[0], (OWN, Why::NotItsFile));
}

#[test]
fn a_name_that_comes_twice_counts_once() {
    let policy = Policy::Prefer(["thread-pool", "kernel-aio", "thread-pool"].map(str::to_owned).to_vec());
    let settings = Settings::new(candidates(), &policy, false, false).expect("known names");
    let names: Vec<_> = settings.order.iter().map(|index| settings.candidates[usize::from(*index)].name).collect();
    assert_eq!((settings.named, &names[..2]), (2, &["thread-pool", "kernel-aio"][..]), "{names:?}");
    assert_eq!(names.iter().filter(|name| **name == "thread-pool").count(), 1, "{names:?}");
}

#[test]
fn unknown_names_list_the_known_ones() {
    let error = Settings::new(candidates(), &prefer("kernelaio"), false, false).expect_err("a typo");
    let text = error.to_string();
    assert!(text.contains("kernelaio") && text.contains("kernel-aio, posix-aio, thread-pool"), "{text}");
}
