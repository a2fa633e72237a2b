//! The tables of `docs/fallback.md` and `docs/platforms.md` name what the code has, and nothing else; `docs/testing.md` and
//! `docs/semantics.md` name tests that there are and that run; what the documents show as code is compiled or run.

#[path = "documented/items.rs"]
mod items;
mod support;

use std::path::Path;
use std::process::Command;

use polyaio::{Errno, Reason, Why};
use support::{Watched, example, quiet, report_skip, strace};

const FALLBACKS: &str = "docs/fallback.md";

/// The cells of the rows of the table that begins with this header.
fn rows(header: &str) -> Vec<Vec<String>> {
    let text = text(FALLBACKS).expect("it is there");
    let table = text.lines().skip_while(|line| !line.starts_with(header)).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = table.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "no table begins with {header:?}");
    rows
}

/// The platforms' backends are those of the table that builds are held to, and this build's are in it.
#[test]
fn the_backends_of_every_platform_are_documented() {
    let read = |name: &str| text(name).expect("there");
    let names = |text: &str, mark: char| text.split(mark).skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let source = read("backends/compiled_in.rs");
    let table = source.split("const PLATFORMS").nth(1).and_then(|rest| rest.split("];\n").next()).expect("the table");
    // `(cfg!(target_os = "..."), &["...", ...]),`
    let entries = table.split("(cfg!(").skip(1).map(|entry| names(entry.split("&[").nth(1).expect("a list"), '"'));
    let entries: Vec<_> = entries.collect();
    let text = read("docs/platforms.md");
    let rows =
        text.lines().filter(|line| line.starts_with("| ") && (line.contains(" step") || line.contains(" all steps")));
    let rows: Vec<_> = rows.map(|row| names(row.split('|').nth(2).expect("a cell"), '`')).collect();
    // glibc has three rows, musl two, each of one kind of build.
    let mut kinds = rows.clone();
    kinds.remove(4);
    kinds.drain(1..3);
    assert!(kinds == entries && rows[..5].iter().all(|row| *row == entries[0]), "{rows:?}, {entries:?}");
    let all_features = cfg!(feature = "kernel-aio") && cfg!(feature = "posix-aio");
    let here = polyaio::backends::COMPILED_IN;
    assert!(!all_features || entries.iter().any(|entry| entry == here), "{here:?}");
}

/// A row for each reason, in the order of declaration, and no row without a reason.
#[test]
fn every_reason_is_documented() {
    let rows = rows("| reason | variant | what it means | what to do |");
    let want: Vec<_> =
        Reason::ALL.iter().map(|reason| [format!("`{reason}`"), format!("`Reason::{reason:?}`")]).collect();
    assert_eq!(rows.iter().map(|row| row[..2].to_vec()).collect::<Vec<_>>(), want);
    assert!(rows.iter().all(|row| row.len() == 4 && row[2..].iter().all(|cell| !cell.is_empty())), "{rows:?}");
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
    let rows = rows("| `Why` | in words | what to do, where you want it otherwise |");
    assert_eq!(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), want);
    // None is left out above: the source declares as many.
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/router/policy.rs")).expect("there");
    let body = source.split("pub enum Why {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the enum");
    let declared = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.is_empty());
    let declared: Vec<_> = declared.map(|line| line.split(['(', ',']).next().unwrap_or_default()).collect();
    assert_eq!(declared, all.iter().map(name).collect::<Vec<_>>());
    for (why, row) in all.iter().zip(&rows) {
        let words = why.to_string();
        let words = words.split(": ").next().unwrap_or_default();
        // Those with a value say in the table what the value is.
        let fixed = !matches!(why, Why::Demoted(_) | Why::NotStarted(_));
        assert!(row[1].contains(words) || !fixed, "{row:?} does not say: {words}");
        assert!(row.len() == 3 && !row[2].is_empty(), "{row:?} does not say what to do");
    }
}

/// A file of this project.
fn text(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
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

/// The documents: their paths in the project.
fn documents() -> Vec<String> {
    let mut all: Vec<_> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    for dir in ["docs", "docs/decisions"] {
        let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).expect("documents").flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok()).filter(|name| name.ends_with(".md"));
        all.extend(names.map(|name| format!("{dir}/{name}")));
    }
    all.sort();
    all
}

/// The blocks of code of a text: the language that each claims, and its lines.
fn blocks(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            blocks.push((language, lines.by_ref().take_while(|line| line.trim_start() != "```").collect()));
        }
    }
    blocks
}

/// What is shown as code is a doctest, is run, or is read by the test of its kind. What is no code says that it is text.
#[test]
fn no_snippet_goes_unchecked() {
    let library = text("src/lib.rs").expect("the library");
    let mut count = 0;
    for document in documents() {
        for (language, lines) in blocks(&text(&document).expect("it is there")) {
            count += 1;
            match language {
                "rust" => {
                    let included = library.contains(&format!("include_str!(\"../{document}\")"));
                    assert!(included, "src/lib.rs does not include {document} as a doctest: {lines:#?}");
                }
                // README: `.ci/run` runs the first block, and the tests of examples/clients/ the other.
                "sh" => {
                    let run = document.starts_with("docs/") || ["README.md", "CONTRIBUTING.md"].contains(&&*document);
                    assert!(run, "{document}: nobody runs {lines:#?}");
                }
                "json" => {
                    let value = serde_json::from_str::<serde_json::Value>(&lines.join("\n"));
                    assert!(value.is_ok(), "{document}: {value:?}: {lines:#?}");
                }
                "text" => {
                    let command = lines.iter().find(|line| line.trim_start().starts_with("cargo "));
                    assert_eq!(command, None, "{document}: a command that nobody runs");
                }
                other => panic!("{document}: a block of {other:?} is not checked by anybody: {lines:#?}"),
            }
        }
    }
    assert!(count > 15, "{count} blocks: the documents were not found");
}

/// The shell's commands in docs/ end well. An example is run as it was built with this test.
#[test]
fn the_commands_of_the_documents_run() {
    const BEGIN: &str = "cargo run --quiet --example ";
    let mut count = 0;
    for document in documents().iter().filter(|document| document.starts_with("docs/")) {
        for (_, lines) in blocks(&text(document).expect("it is there")).iter().filter(|(language, _)| *language == "sh")
        {
            for line in lines {
                count += 1;
                if let (true, Err(why)) = (line.starts_with("strace "), strace()) {
                    report_skip("documented::the_commands_of_the_documents_run", &format!("{line}: {why}"));
                    continue;
                }
                let command = match line.split_once(BEGIN).map(|(before, rest)| (before, rest.split_once(" -- "))) {
                    Some((before, Some((name, arguments)))) => {
                        format!("{before}'{}' {arguments}", example(name).display())
                    }
                    Some(_) => panic!("{document}: no example with arguments: {line}"),
                    None => (*line).to_owned(),
                };
                let mut shell = Command::new("sh");
                quiet(shell.args(["-c", &command]).current_dir(env!("CARGO_MANIFEST_DIR")));
                let finished = Watched::start(&mut shell).finish().expect_success();
                assert!(!finished.stdout.is_empty(), "{document}: it shows nothing: {line}");
            }
        }
    }
    assert!(count > 5, "{count} commands: they were not found");
}

/// The README and the crate's front page say what each feature is for.
#[test]
fn every_feature_is_documented() {
    let manifest = text("Cargo.toml").expect("the manifest");
    let features = manifest.split("\n[features]\n").nth(1).and_then(|rest| rest.split("\n[").next()).expect("features");
    let names = features.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let names: Vec<_> = names.filter(|name| !name.starts_with('#') && *name != "default").collect();
    assert!(names.len() > 5, "{names:?}: they were not found");
    for page in ["README.md", "src/lib.rs"] {
        let page_text = text(page).expect("it is there");
        let section =
            page_text.split("# Features\n").nth(1).and_then(|rest| rest.split("# ").next()).unwrap_or_default();
        let missing: Vec<_> = names.iter().filter(|name| !section.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{page} does not say what these features are for: {missing:?}");
    }
}

/// All files of Rust below a folder.
fn sources(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder of sources").flatten().map(|entry| entry.path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(dirs.iter().flat_map(|dir| sources(dir))).collect()
}

/// The sections of what is said of an item stand in the same order everywhere.
#[test]
fn the_sections_of_the_documentation_are_in_order() {
    const ORDER: [&str; 7] = ["Errors", "Safety", "Panics", "Cancel safety", "Platform", "References", "Examples"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for path in ["src", "backends"].iter().flat_map(|dir| sources(&root.join(dir))) {
        let source = std::fs::read_to_string(&path).expect("a source");
        let (mut last, mut code) = (0, false);
        for (number, line) in source.lines().map(str::trim_start).enumerate() {
            let Some(text) = line.strip_prefix("///").map(str::trim_start) else {
                (last, code) = (0, false);
                continue;
            };
            code ^= text.starts_with("```");
            let section = text.strip_prefix("# ").filter(|_| !code);
            if let Some(place) = section.and_then(|section| ORDER.iter().position(|known| *known == section)) {
                assert!(
                    place >= last,
                    "{}:{}: `{}` stands after `{}`",
                    path.display(),
                    number + 1,
                    ORDER[place],
                    ORDER[last]
                );
                (last, count) = (place, count + 1);
            }
        }
    }
    assert!(count > 100, "{count} sections: they were not found");
}

/// Who opens the folder finds each document.
#[test]
fn every_document_is_in_the_index() {
    let index = text("docs/README.md").expect("the index");
    for document in documents() {
        let Some(name) = document.strip_prefix("docs/").filter(|name| !name.contains('/') && *name != "README.md")
        else {
            continue;
        };
        assert!(index.contains(&format!("]({name})")), "docs/README.md does not say what {name} is for");
    }
}
