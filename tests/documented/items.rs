//! Each public item shows how it is used: in an example of its own, or in that of its type, trait or module.
//!
//! The sources are read as rustfmt leaves them: what is at the margin is an item of the module, what is four columns in is a
//! member. What the compiler calls `unreachable_pub` does not pass the lints, so that `pub` means public; the few items for
//! which it does not are listed in [`NOT_SHOWN`].

use std::collections::BTreeSet;
use std::path::Path;

use super::{sources, text};

/// Public only for the compiler's sake: they stand in signatures of hidden methods, and nobody can name them.
const NOT_SHOWN: [(&str, &str); 5] = [
    ("Shape", "what `Operation`'s hidden `shape` returns"),
    ("Extra", "what `Operation`'s hidden `extra` returns"),
    ("Opening", "stands in `Extra`"),
    ("Ranges", "what `Operation`'s hidden `lend` is given"),
    ("How", "what `Transfer`'s hidden `how` returns"),
];

/// A public item.
#[derive(Clone, Debug)]
struct Item {
    /// Its file in the project.
    path: String,
    line: usize,
    /// The type or trait that it is a member of.
    owner: Option<String>,
    name: String,
    /// What its documentation shows as code.
    code: String,
    /// The names that an inline module has from elsewhere, with the module that has them: `crate::op`.
    exports: Vec<(String, String)>,
}

/// Where the lines are of a source that are being read.
#[derive(Default)]
struct Reader {
    /// The type whose `impl`, or the trait whose block, this is.
    owner: Option<String>,
    in_trait: bool,
    docs: Vec<String>,
    hidden: bool,
}

#[test]
fn every_public_item_is_shown_in_an_example() {
    let items = public_items();
    assert!(items.len() > 450, "{} items: they were not found", items.len());
    let mut missing = Vec::new();
    let mut excused = BTreeSet::new();
    for item in &items {
        let name = item.owner.as_ref().unwrap_or(&item.name);
        if let Some((name, _)) = NOT_SHOWN.iter().find(|(excused, _)| excused == name) {
            excused.insert(*name);
        } else if item.code.is_empty() && !is_shown_elsewhere(item, &items) {
            let owner = item.owner.as_ref().map(|owner| format!("{owner}::")).unwrap_or_default();
            missing.push(format!("{}:{}: {owner}{}", item.path, item.line, item.name));
        }
    }
    assert!(missing.is_empty(), "no example, nor one in what they belong to, uses these:\n{}", missing.join("\n"));
    assert_eq!(excused.len(), NOT_SHOWN.len(), "of the exceptions there are only {excused:?}");
}

/// What is shown is run: with hidden lines where it needs some, not by being left out.
#[test]
fn no_example_is_left_out() {
    for (path, source) in all_sources() {
        for (number, line) in source.lines().enumerate() {
            let text = line.trim_start().strip_prefix("///").or(line.trim_start().strip_prefix("//!"));
            let fence = text.and_then(|text| text.trim_start().strip_prefix("```")).unwrap_or_default();
            assert!(["", "text"].contains(&fence), "{path}:{}: a block of {fence:?} is not run", number + 1);
        }
    }
}

/// Whether the example of the type, of the trait or of the module uses it.
fn is_shown_elsewhere(item: &Item, items: &[Item]) -> bool {
    let Some(owner) = &item.owner else {
        let exports = |module: &&Item| {
            module
                .exports
                .iter()
                .any(|(name, from)| *name == item.name && item.path.starts_with(&from.replace("crate::", "src/")))
        };
        return items
            .iter()
            .filter(exports)
            .any(|module| uses(&module.code, &[&format!("{}::", module.name)], &item.name));
    };
    let types: Vec<_> = items.iter().filter(|other| other.owner.is_none() && other.name == *owner).collect();
    let owner = types.iter().find(|other| other.path == item.path).or(types.first().filter(|_| types.len() == 1));
    let owner = owner.unwrap_or_else(|| panic!("{}:{}: which {owner:?} is it?", item.path, item.line));
    uses(&owner.code, &[".", "::", "fn ", "type "], &item.name)
}

/// Whether code names something, behind one of these.
fn uses(code: &str, before: &[&str], name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    before.iter().any(|before| code.split(&format!("{before}{name}")).skip(1).any(ends))
}

/// Path and text of each source of the library.
fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "backends"].iter().flat_map(|dir| sources(&root.join(dir)));
    let files = files.map(|path| path.strip_prefix(root).expect("below it").to_str().expect("a name").to_owned());
    let files = files.filter(|path| !path.contains("/tests/") && !path.ends_with("/tests.rs"));
    files.map(|path| (path.clone(), text(&path).expect("a source"))).collect()
}

fn public_items() -> Vec<Item> {
    let all = all_sources();
    let mut items = Vec::new();
    for (path, source) in &all {
        let mut reader = Reader::default();
        for (index, line) in source.lines().enumerate() {
            let Some((name, owner)) = reader.read(line) else { continue };
            let mut item = Item {
                path: path.clone(),
                line: index + 1,
                owner,
                name,
                code: code(&std::mem::take(&mut reader.docs)),
                exports: Vec::new(),
            };
            if line.trim_start().starts_with("pub mod ") {
                item.exports = exports(source, index);
                item.code +=
                    &all.iter().find_map(|(path, text)| inner_code(path, text, &item.name)).unwrap_or_default();
            }
            items.push(item);
        }
    }
    items
}

impl Reader {
    /// The name of the public item that a line begins, and whose member it is.
    fn read(&mut self, line: &str) -> Option<(String, Option<String>)> {
        let text = line.trim_start();
        if let Some(docs) = text.strip_prefix("///") {
            self.docs.push(docs.strip_prefix(' ').unwrap_or(docs).to_owned());
            return None;
        }
        if text.starts_with("#[") || text.starts_with("//") {
            self.hidden |= text == "#[doc(hidden)]";
            return None;
        }
        let margin = line.len() - text.len();
        if margin == 0 && !text.is_empty() {
            self.owner = block_of(text);
            self.in_trait = text.contains("trait ");
        }
        let found = self.item(text, margin);
        let hidden = std::mem::take(&mut self.hidden);
        if found.is_none() || hidden {
            self.docs.clear();
            return None;
        }
        found
    }

    fn item(&self, text: &str, margin: usize) -> Option<(String, Option<String>)> {
        let is_member = self.in_trait && margin == 4;
        // `name,` and `name: field,` of a macro that makes methods.
        let is_made = margin == 8 && !self.docs.is_empty() && self.owner.is_some() && text.ends_with(',');
        let rest = match text.strip_prefix("pub ") {
            Some(rest) => rest,
            None if is_made => return Some((name(text), self.owner.clone())),
            None if is_member => text,
            None => return None,
        };
        let words = rest.split(' ').filter(|word| !["const", "unsafe", "async"].contains(word)).collect::<Vec<_>>();
        let is_constant = rest.starts_with("const ") && words.first().is_some_and(|word| word.ends_with(':'));
        let kinds = ["fn", "struct", "enum", "trait", "type", "mod", "static"];
        let named = match words.as_slice() {
            [first, ..] if is_constant => first,
            [kind, named, ..] if kinds.contains(kind) && !named.starts_with('$') => named,
            _ => return None,
        };
        let owner = if margin == 4 { self.owner.clone() } else { None };
        // Four columns in, of what is no `impl` and no trait, is a field.
        (margin != 4 || owner.is_some()).then(|| (name(named), owner))
    }
}

/// The name at the beginning of a text.
fn name(text: &str) -> String {
    text.split(|next: char| !next.is_alphanumeric() && next != '_').next().unwrap_or_default().to_owned()
}

/// The type of an inherent `impl`, or the trait, whose block a line begins.
fn block_of(line: &str) -> Option<String> {
    if let Some((_, named)) = line.split_once("trait ").filter(|(before, _)| ["pub ", "pub unsafe "].contains(before)) {
        return Some(name(named));
    }
    let rest = line.strip_prefix("impl")?;
    let mut depth = 0;
    let end = rest.find(|next: char| {
        depth += i32::from(next == '<') - i32::from(next == '>');
        depth == 0
    })?;
    let rest = if rest.starts_with('<') { &rest[end + 1..] } else { rest };
    (!rest.contains(" for ")).then(|| name(rest.trim_start()))
}

/// The lines of a documentation that are code which is run.
fn code(docs: &[String]) -> String {
    let mut fence = None;
    let mut lines = String::new();
    for line in docs {
        match (line.strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, Some("")) => lines = lines + line + "\n",
            (None, _) => {}
        }
    }
    lines
}

/// The code that the documentation of a module shows in its own file, where this is that file.
fn inner_code(path: &str, source: &str, module: &str) -> Option<String> {
    let is_its = path.ends_with(&format!("/{module}.rs")) || path.ends_with(&format!("{module}/mod.rs"));
    let docs = source.lines().map_while(|line| line.strip_prefix("//!"));
    is_its.then(|| code(&docs.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()).collect::<Vec<_>>()))
}

/// What an inline module has from elsewhere: the name, and the module that has it.
fn exports(source: &str, line: usize) -> Vec<(String, String)> {
    let body = source.lines().skip(line + 1).take_while(|line| *line != "}");
    let uses = body.filter_map(|line| line.trim().strip_prefix("pub use ")?.strip_suffix("};")?.split_once("::{"));
    uses.flat_map(|(from, names)| names.split(", ").map(|name| (name.to_owned(), from.to_owned()))).collect()
}
