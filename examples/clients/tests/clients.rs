//! The programs as users run them: on a disk, in memory, and served by threads alone.

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, args: &[&str], path: &Path) -> Output {
    let mut command = Command::new(program);
    let (command_name, options): (&[_], &[_]) = match args.first() {
        Some(first) if !first.starts_with('-') => args.split_at(1),
        _ => (&[], args),
    };
    command.args(command_name).arg(path).args(options);
    command.env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT");
    // Who serves must not depend on how busy the machine is.
    command.env("POLYAIO_SLOW_SUBMIT_US", "1000000000");
    command.output().expect("it was built with this test")
}

#[track_caller]
fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{out}{err}", output.status);
    out.into_owned()
}

/// What it says when it fails.
#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{}{err}", String::from_utf8_lossy(&output.stdout));
    err
}

fn database(args: &[&str], path: &Path) -> Output {
    run(env!("CARGO_BIN_EXE_database"), args, path)
}

fn columns(args: &[&str], path: &Path) -> Output {
    run(env!("CARGO_BIN_EXE_columns"), args, path)
}

/// On the disk: `/tmp` is often memory.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// A directory in memory; where there is none it is said, and the test is over.
fn memory() -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir_in("/dev/shm").ok();
    if dir.is_none() {
        eprintln!("SKIP: /dev/shm cannot be written to");
    }
    dir
}

const FEW: [&str; 6] = ["--entries", "1500", "--transaction", "500", "--cache", "65536"];

/// One of the lines that begin so, behind that.
#[track_caller]
fn line<'a>(text: &'a str, begin: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_else(|| panic!("no {begin:?} in: {text}"))
}

#[test]
fn a_database_finds_what_it_was_given() {
    let dir = disk();
    for (name, more) in [("buffered", &[] as &[&str]), ("direct", &["--direct"])] {
        let text = printed(&database(&[&FEW, more].concat(), &dir.path().join(name)));
        assert!(line(&text, "filled with 1500 entries: served by ").contains(' '), "{text}");
        assert!(!line(&text, "opened again and checked: served by ").starts_with("nothing"), "{text}");
    }
}

#[test]
fn a_database_in_memory() {
    let Some(dir) = memory() else { return };
    for (name, more) in [("buffered", &[] as &[&str]), ("direct", &["--direct"])] {
        printed(&database(&[&FEW, more].concat(), &dir.path().join(name)));
    }
}

/// Where one backend is required it is the only one that serves.
#[test]
fn a_database_served_by_threads_alone() {
    let dir = disk();
    let threads = ["--backend", "thread-pool", "--strict"];
    let text = printed(&database(&[&FEW[..], &threads].concat(), &dir.path().join("pool")));
    for phase in ["filled with 1500 entries", "checked", "opened again and checked"] {
        let served = line(&text, &format!("{phase}: served by "));
        assert!(served.starts_with("thread-pool ") && !served.contains(','), "{served}");
    }
}

/// What is in the file is redb's: its own storage reads it, and the other way round.
#[test]
fn the_file_is_an_ordinary_database() {
    use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
    let dir = disk();
    let path = dir.path().join("database");
    printed(&database(&FEW, &path));
    let table = redb::TableDefinition::<u64, &[u8]>::new("entries");
    {
        let own = redb::Database::open(&path).expect("redb opens it");
        let reading = own.begin_read().expect("it is read");
        assert_eq!(reading.open_table(table).expect("the table").len().expect("a length"), 1500);
    }
    {
        let own = redb::Database::open(&path).expect("redb opens it");
        let writing = own.begin_write().expect("it is written");
        writing.open_table(table).expect("the table").remove(7).expect("an entry");
        writing.commit().expect("room");
    }
    let engine = polyaio::Engine::new().expect("an engine");
    let storage = polyaio_clients::storage::Storage::open(&engine, &path, polyaio::Direct::Preferred);
    let again = redb::Builder::new().create_with_backend(storage.expect("it is there")).expect("a database");
    let reading = again.begin_read().expect("it is read");
    assert_eq!(reading.open_table(table).expect("the table").len().expect("a length"), 1499);
}

#[test]
fn one_process_at_a_time_has_a_database() {
    let dir = disk();
    let path = dir.path().join("database");
    let engine = polyaio::Engine::new().expect("an engine");
    let storage = polyaio_clients::storage::Storage::open(&engine, &path, polyaio::Direct::Off).expect("a file");
    let why = refused(&database(&["--reuse"], &path), 1);
    assert!(why.contains("another process has this database open"), "{why}");
    drop(storage);
    printed(&database(&[&FEW[..], &["--reuse"]].concat(), &path));
}

#[test]
fn what_a_database_cannot_do_is_said() {
    let dir = disk();
    let path = dir.path().join("database");
    std::fs::write(&path, "no database, but 27 bytes.\n").expect("a file");
    let why = refused(&database(&[], &path), 1);
    assert!(why.contains("is there already") && why.contains("--reuse"), "{why}");
    let why = refused(&database(&["--reuse"], &path), 1);
    assert!(why.contains("cannot open the database"), "{why}");
    let why = refused(&database(&[], &dir.path().join("missing/database")), 1);
    assert!(why.contains("No such file") && why.lines().count() == 1, "{why}");
    let why = refused(&database(&["--entries", "0"], &dir.path().join("none")), 2);
    assert!(why.contains("--entries"), "{why}");
}

/// Sums over what `columns write --rows 5000` writes.
const ID: &str = "5000 rows, sum 12497500";
const CELSIUS: &str = "5000 rows, sum 72750.0";

fn measurements(dir: &Path, more: &[&str]) -> std::path::PathBuf {
    let path = dir.join("measurements.parquet");
    let args = ["write", "--rows", "5000", "--group", "2000"];
    let text = printed(&columns(&[&args, more].concat(), &path));
    assert!(text.starts_with("wrote 5000 rows, "), "{text}");
    path
}

#[test]
fn columns_are_read_as_one_batch() {
    let dir = disk();
    let path = measurements(dir.path(), &[]);
    for more in [&[] as &[&str], &["--direct"], &["--backend", "thread-pool", "--strict"]] {
        let args = [&["read", "--column", "id", "--column", "celsius"], more].concat();
        let text = printed(&columns(&args, &path));
        assert_eq!((line(&text, "id: "), line(&text, "celsius: ")), (ID, CELSIUS), "{text}");
        assert!(!text.contains("station: ") && !text.contains("note: "), "{text}");
        // Three groups of rows, and in each both columns together.
        assert!(text.contains(", at most 2 in one"), "{text}");
        if more.contains(&"thread-pool") {
            let served = line(&text, "served by ");
            assert!(served.starts_with("thread-pool ") && !served.contains(','), "{served}");
        }
    }
    let text = printed(&columns(&["read"], &path));
    assert_eq!((line(&text, "id: "), line(&text, "celsius: ")), (ID, CELSIUS), "{text}");
    assert!(text.contains("note: 5000 rows") && text.contains(", at most 4 in one"), "{text}");
}

#[test]
fn columns_in_memory() {
    let Some(dir) = memory() else { return };
    for more in [&[] as &[&str], &["--direct"]] {
        let path = measurements(dir.path(), more);
        let text = printed(&columns(&[&["read", "--column", "id"], more].concat(), &path));
        assert_eq!(line(&text, "id: "), ID, "{text}");
        std::fs::remove_file(path).expect("it is ours");
    }
}

/// Whatever was to be read: the same bytes as `std` reads, also at the edges of blocks and of the file.
#[test]
fn any_range_is_what_is_there() {
    use parquet::arrow::async_reader::AsyncFileReader as _;
    let dir = disk();
    let path = dir.path().join("bytes");
    let bytes: Vec<u8> = (0..50_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&path, &bytes).expect("room");
    let engine = polyaio::Engine::new().expect("an engine");
    let ranges =
        [0..1, 0..50_001, 4095..4097, 4096..8192, 511..512, 49_152..50_001, 50_000..50_001, 7..7, 8191..12_289];
    for direct in [polyaio::Direct::Off, polyaio::Direct::Preferred, polyaio::Direct::Emulated { alignment: 4096 }] {
        let file = polyaio::OpenOptions::new().read(true).direct(direct).open(&engine, &path).expect("it is there");
        let mut reader = polyaio_clients::columns::ColumnReader::new(&engine, file);
        let found = engine.block_on(reader.get_byte_ranges(ranges.to_vec())).expect("they are there");
        for (range, found) in ranges.iter().zip(found) {
            assert_eq!(found[..], bytes[range.start as usize..range.end as usize], "{direct:?} {range:?}");
        }
        assert_eq!((reader.fetched().batches, reader.fetched().ranges), (1, ranges.len() as u64));
        assert!(engine.block_on(reader.get_bytes(50_000..50_002)).is_err(), "{direct:?}: behind the end");
    }
}

#[test]
fn what_columns_cannot_do_is_said() {
    let dir = disk();
    let path = measurements(dir.path(), &[]);
    let why = refused(&columns(&["write"], &path), 1);
    assert!(why.contains("File exists"), "{why}");
    let why = refused(&columns(&["read", "--column", "fahrenheit"], &path), 1);
    assert!(why.contains("no column \"fahrenheit\"") && why.contains("id, celsius, station, note"), "{why}");
    let why = refused(&columns(&["read"], &dir.path().join("missing")), 1);
    assert!(why.contains("No such file") && why.contains("check the path"), "{why}");
    let text = dir.path().join("text");
    std::fs::write(&text, "this is no Parquet file").expect("room");
    let why = refused(&columns(&["read"], &text), 1);
    assert!(why.contains("is it a Parquet file"), "{why}");
    let why = refused(&columns(&["read"], dir.path()), 1);
    assert!(why.lines().count() == 1, "{why}");
}

/// The commands that the README shows, as they stand there, on files of our own.
#[test]
fn what_the_readme_says_runs() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).expect("it is there");
    let dir = disk();
    let mut lines = readme.lines().skip_while(|line| *line != "cd examples/clients").skip(1).peekable();
    assert!(lines.peek().is_some(), "the README shows no commands");
    for line in lines.take_while(|line| *line != "```") {
        let command = line.strip_prefix("cargo run --bin ").expect("it runs a program");
        let (program, arguments) = command.split_once(" -- ").expect("arguments");
        let program = match program {
            "database" => env!("CARGO_BIN_EXE_database"),
            "columns" => env!("CARGO_BIN_EXE_columns"),
            other => panic!("there is no {other}"),
        };
        let here = format!("{}/", dir.path().display());
        let arguments = arguments.replace("/var/tmp/", &here);
        let mut command = Command::new(program);
        command.args(arguments.split(' ')).env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT");
        let output = command.output().expect("it was built with this test");
        println!("{line}\n{}", printed(&output));
    }
}
