//! The options that choose a backend, the name of what really served, and how often.

#![allow(dead_code, reason = "not every example uses all of it")]

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use polyaio::{Engine, EngineBuilder, Policy};

use crate::text::Failure;

/// The backend that the user would like to serve the requests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// Whatever suits the descriptor
    Auto,
    /// Linux kernel AIO (io_submit)
    KernelAio,
    /// POSIX AIO (aio_read)
    PosixAio,
    /// Threads that call pread and pwrite
    ThreadPool,
}

impl Backend {
    /// The library's name for it; `None` leaves the choice to the library.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Backend::Auto => None,
            Backend::KernelAio => Some("kernel-aio"),
            Backend::PosixAio => Some("posix-aio"),
            Backend::ThreadPool => Some("thread-pool"),
        }
    }
}

/// The choice, as every example takes it: on the command line, else from the environment.
#[derive(clap::Args)]
pub(crate) struct Selection {
    /// Prefer this backend; what it cannot serve falls back visibly [default: POLYAIO_BACKEND, or auto]
    #[arg(long, visible_alias = "engine", value_enum, value_name = "BACKEND")]
    pub(crate) backend: Option<Backend>,

    /// Make a fallback, or direct I/O that is refused, an error: a preferred backend is a required one
    /// [default: POLYAIO_STRICT]
    #[arg(long)]
    strict: bool,
}

impl Selection {
    /// Settings of an engine that prefers, or requires, the backend. What is not on the command line is left to the
    /// library, which asks the environment.
    pub(crate) fn builder(&self) -> EngineBuilder {
        let builder = Engine::builder();
        let builder = match self.backend.map(Backend::name) {
            None => builder,
            Some(None) => builder.policy(Policy::Auto),
            Some(Some(name)) => builder.policy(Policy::Prefer(vec![name.to_string()])),
        };
        if self.strict { builder.strict(true) } else { builder }
    }

    /// Whether fallbacks are errors, by whichever way that was asked for.
    pub(crate) fn strict(&self) -> bool {
        self.strict || std::env::var("POLYAIO_STRICT").is_ok_and(|strict| strict == "1")
    }
}

/// Starts an engine.
pub(crate) fn start(builder: EngineBuilder) -> Result<Engine, Failure> {
    builder.build().map_err(|error| Failure::new(format!("cannot start: {error}")))
}

/// Requests per backend, and fallbacks per reason.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) served_by: BTreeMap<String, u64>,
    pub(crate) fallbacks: BTreeMap<String, u64>,
}

impl Tally {
    /// What the engine did since it started.
    pub(crate) fn of(engine: &Engine) -> Tally {
        let stats = engine.stats();
        let served_by = stats.served_by().into_iter().map(|(name, count)| (name.to_string(), count)).collect();
        let fallbacks = stats.fallbacks.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
        Tally { served_by, fallbacks }
    }

    /// What was added since `earlier`.
    #[allow(dead_code, reason = "not every example has phases")]
    pub(crate) fn since(&self, earlier: &Tally) -> Tally {
        let difference = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let added = now.iter().map(|(name, count)| (name.clone(), count - then.get(name).unwrap_or(&0)));
            added.filter(|(_, count)| *count != 0).collect()
        };
        Tally {
            served_by: difference(&self.served_by, &earlier.served_by),
            fallbacks: difference(&self.fallbacks, &earlier.fallbacks),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "served by {}", list(&self.served_by))?;
        if self.fallbacks.is_empty() { Ok(()) } else { write!(f, "; fallbacks: {}", list(&self.fallbacks)) }
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "nothing".to_string();
    }
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
