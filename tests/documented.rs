//! The tables of `docs/backends.md` name what the code has, and nothing else; `docs/testing.md` and `docs/semantics.md` name
//! tests that there are and that run.

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

/// A file of this project.
fn text(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
}

/// The tests that a text names: `path.rs::test`.
fn tests_in(text: &str) -> Vec<(&str, &str)> {
    let names = text.split('`').skip(1).step_by(2);
    names.filter_map(|name| name.split_once("::")).filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// Fails unless the test is there, and a case of the contract suite is mounted.
fn assert_test(path: &str, test: &str, place: &str) {
    let source = text(path).unwrap_or_else(|error| panic!("{place}: {path}: {error}"));
    let made_by_a_macro = || source.lines().any(|line| line.trim_start().starts_with(&format!("{test}:")));
    assert!(source.contains(&format!("fn {test}(")) || made_by_a_macro(), "{place}: {path} has no test {test}");
    let Some(area) = path.strip_prefix("tests/contract/").and_then(|file| file.strip_suffix(".rs")) else { return };
    let suite = text("tests/contract/main.rs").expect("the suite");
    let mounted = suite.split(&format!("\n    {area} {{\n")).nth(1).and_then(|rest| rest.split("\n    }").next());
    let mut mounted = mounted.unwrap_or_default().lines();
    assert!(mounted.any(|line| line.trim() == format!("{test},")), "{place}: {area}::{test} is not mounted");
}

/// Each row of the tables says which tests would notice, and they are there.
#[test]
fn every_pitfall_and_behaviour_has_its_tests() {
    let page = text("docs/testing.md").expect("it is there");
    let is_row = |line: &&str| line.starts_with("| ") && !line.ends_with("| tests |");
    let rows: Vec<_> = page.lines().filter(is_row).collect();
    assert!(rows.len() > 100, "{} rows", rows.len());
    for row in rows {
        let named = tests_in(row);
        assert!(!named.is_empty(), "no test stands in: {row}");
        named.into_iter().for_each(|(path, test)| assert_test(path, test, row));
    }
}

/// Each heading has its cases in the contract suite, and what the design counts as the contract is among them.
#[test]
fn every_meaning_has_its_cases() {
    let page = text("docs/semantics.md").expect("it is there");
    let sections: Vec<_> = page.split("\n## ").skip(1).flat_map(|section| section.split("\n### ")).collect();
    for section in &sections {
        let heading = section.lines().next().expect("a heading");
        let cases = section.split("Cases: ").nth(1).unwrap_or_else(|| panic!("{heading}: no cases"));
        let named = tests_in(cases);
        assert!(!named.is_empty(), "{heading}: no cases");
        for (path, test) in named {
            assert!(path.starts_with("tests/contract/"), "{heading}: {path} runs on one backend");
            assert_test(path, test, heading);
        }
    }
    let wanted = [
        "Positioned transfers",
        "Transferred count",
        "Streams",
        "Order of appends",
        "Order on streams",
        "Sync covers what was submitted before it",
        "Cancel",
        "Drop",
        "Time limits",
        "Close",
        "Fork",
        "The end of an engine",
    ];
    for heading in wanted {
        assert!(sections.iter().any(|section| section.lines().next() == Some(heading)), "{heading} is missing");
    }
}
