//! The tables of `docs/backends.md` name what the code has, and nothing else.

use polyaio::{Errno, Reason, Why};

/// The first cells of the rows of the table that begins with this header.
fn rows(header: &str) -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/backends.md")).expect("it is there");
    let table = text.lines().skip_while(|line| !line.starts_with(header)).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = table.skip(2).map(|row| row.split('|').nth(1).expect("a cell").trim().to_owned()).collect();
    assert!(!rows.is_empty(), "no table begins with {header:?}");
    rows
}

/// A row for each reason, in the order of declaration, and no row without a reason.
#[test]
fn every_reason_is_documented() {
    let want: Vec<_> = Reason::ALL.iter().map(|reason| format!("`{reason}`")).collect();
    assert_eq!(rows("| reason | what it means | what to do |"), want);
}

/// The same for the policy's reasons, and the words beside them are those that a program prints.
#[test]
fn every_why_is_documented() {
    let all = [
        Why::Direct,
        Why::KernelSync,
        Why::CacheHits,
        Why::InlinePageCache,
        Why::InlineMemory,
        Why::ServesAny,
        Why::ServesSeekable,
        Why::OwnFile,
        Why::ThroughPageCache,
        Why::Stream,
        Why::StreamRefusesNowait,
        Why::BufferedWouldBlock,
        Why::AppendWouldBlock,
        Why::MemoryIsSynchronous,
        Why::StreamWouldBlock,
        Why::NotOffered,
        Why::NotItsFile,
        Why::NotStarted("".into()),
        Why::Demoted(Errno(libc::EINVAL)),
        Why::SlowSubmit,
    ];
    let name = |why: &Why| format!("{why:?}").split('(').next().unwrap_or_default().to_owned();
    let want: Vec<_> = all.iter().map(|why| format!("`Why::{}`", name(why))).collect();
    assert_eq!(rows("| `Why` | in words |"), want);
    // None is left out above: the source declares as many.
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/router/policy.rs")).expect("there");
    let body = source.split("pub enum Why {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the enum");
    let declared = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.is_empty());
    let declared: Vec<_> = declared.map(|line| line.split(['(', ',']).next().unwrap_or_default()).collect();
    assert_eq!(declared, all.iter().map(name).collect::<Vec<_>>());
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/backends.md")).expect("it is there");
    for why in &all {
        let row = text.lines().find(|line| line.starts_with(&format!("| `Why::{}` |", name(why)))).expect("a row");
        let words = why.to_string();
        let words = words.split(": ").next().unwrap_or_default();
        // Those with a value say in the table what the value is.
        let fixed = !matches!(why, Why::Demoted(_) | Why::NotStarted(_));
        assert!(row.contains(words) || !fixed, "{row} does not say: {words}");
    }
}
