//! A subscriber written by hand: keeps every event of this crate, and calls a hook with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::tools::{eventually, lock};

/// One event as it was delivered.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) level: Level,
    pub(crate) target: String,
    /// By name; `message` is what it is called.
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Seen {
    pub(crate) fn name(&self) -> &str {
        self.get("message")
    }

    /// A field, or nothing where the event has it not.
    pub(crate) fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }
}

type Hook = Arc<dyn Fn(&Seen) + Send + Sync>;

static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());
static HOOK: Mutex<Option<Hook>> = Mutex::new(None);
static TURN: Mutex<()> = Mutex::new(());

/// Events come from all threads, so that there is one subscriber for the process: one test at a time listens.
pub(crate) struct Recorder(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Recorder {
    pub(crate) fn start() -> Self {
        let turn = lock(&TURN);
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| tracing::subscriber::set_global_default(Global).expect("nobody else's"));
        lock(&SEEN).clear();
        Self(turn)
    }

    /// Has `hook` called with each event, on the thread that delivers it.
    pub(crate) fn hook(&self, hook: impl Fn(&Seen) + Send + Sync + 'static) {
        self.replace(Some(Arc::new(hook)));
    }

    /// Ends the calls, and forgets what was seen.
    pub(crate) fn clear(&self) {
        self.replace(None);
        lock(&SEEN).clear();
    }

    fn replace(&self, hook: Option<Hook>) {
        let old = std::mem::replace(&mut *lock(&HOOK), hook);
        // A thread that is inside of it must not be the one that drops it: it may hold an engine, whose end would be told
        // when the next test listens.
        let deadline = Instant::now() + Duration::from_secs(60);
        while old.as_ref().is_some_and(|old| Arc::strong_count(old) > 1) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Outside the lock.
        drop(old);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&SEEN).clone()
    }

    /// The events of this name.
    pub(crate) fn named(&self, name: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.name() == name).collect()
    }

    /// The one event of this name. The end of a request may be told just after its result is there.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> Seen {
        eventually(name, || !self.named(name).is_empty());
        let mut named = self.named(name);
        assert_eq!(named.len(), 1, "{name}: {:#?}", self.seen());
        named.remove(0)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.replace(None);
    }
}

struct Global;

impl Subscriber for Global {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("polyaio")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        let seen = Seen { level: *metadata.level(), target: metadata.target().to_owned(), fields: fields.0 };
        lock(&SEEN).push(seen.clone());
        let hook = lock(&HOOK).clone();
        if let Some(hook) = hook {
            hook(&seen);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
