//! What happened, for people (a line when something was not served as it should be) and for programs (one JSON object).

use std::path::{Path, PathBuf};

use polyaio::{Engine, Route, RouteStep};
use serde_json::{Map, Value, json};

use crate::backends;
use crate::cli::Args;
use crate::endpoint::Endpoint;
use crate::selection::{Backend, Tally};
use crate::text::{Failure, say};

/// One end of a copy, as it was served.
pub(crate) struct Side {
    pub(crate) path: PathBuf,
    /// `None` where it was not opened.
    served: Option<Served>,
}

struct Served {
    kind: String,
    storage: bool,
    direct: bool,
    direct_refused: Option<String>,
    backend: Option<&'static str>,
    reason: Option<String>,
}

impl Side {
    pub(crate) fn of_source(end: &Endpoint) -> Side {
        Side::of(end, |route| &route.read)
    }

    pub(crate) fn of_destination(end: &Endpoint) -> Side {
        Side::of(end, |route| &route.write)
    }

    fn of(end: &Endpoint, steps: impl Fn(&Route) -> &[RouteStep]) -> Side {
        let facts = end.file.facts();
        let route = end.file.route();
        let first = steps(&route).first();
        let served = Served {
            kind: facts.kind.to_string(),
            storage: end.is_storage(),
            direct: facts.direct,
            direct_refused: facts.direct_refused.as_ref().map(ToString::to_string),
            backend: first.map(|step| step.backend),
            reason: first.map(|step| reason(step, &route)),
        };
        Side { path: end.path.clone(), served: Some(served) }
    }

    fn json(&self) -> Value {
        let served = self.served.as_ref();
        json!({
            "path": self.path.to_string_lossy(),
            "kind": served.map(|served| &served.kind),
            "direct": served.map(|served| served.direct),
            "direct_refused": served.and_then(|served| served.direct_refused.as_ref()),
            "backend": served.and_then(|served| served.backend),
            "reason": served.and_then(|served| served.reason.as_ref()),
        })
    }
}

/// Why this backend comes first, and why those that should have come before it do not.
fn reason(step: &RouteStep, route: &Route) -> String {
    let passed = route.passed.iter().filter(|passed| passed.backend != step.backend);
    let passed = passed.map(|passed| format!("; not {}: {}", passed.backend, passed.reason));
    std::iter::once(step.reason.to_string()).chain(passed).collect()
}

/// How one copy went.
pub(crate) struct Outcome {
    pub(crate) source: Side,
    pub(crate) destination: Side,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) tally: Tally,
    pub(crate) failure: Option<Failure>,
}

impl Outcome {
    /// Of a copy that has not begun.
    pub(crate) fn new(source: &Path, destination: &Path) -> Outcome {
        let side = |path: &Path| Side { path: path.to_path_buf(), served: None };
        let (source, destination) = (side(source), side(destination));
        Outcome { source, destination, bytes: 0, seconds: 0.0, tally: Tally::default(), failure: None }
    }

    /// Tells the user what went wrong or otherwise than asked for.
    pub(crate) fn tell(&self, args: &Args) {
        if let Some(failure) = &self.failure {
            return say(format_args!("aiocp: {}", failure.line));
        }
        let remarks = [self.remark(&self.source, args), self.remark(&self.destination, args)];
        let remarks: Vec<String> = remarks.into_iter().flatten().collect();
        if args.quiet || (remarks.is_empty() && self.tally.fallbacks.is_empty()) {
            return;
        }
        let (source, destination) = (self.source.path.display(), self.destination.path.display());
        let remarks: String = remarks.iter().map(|remark| format!("; {remark}")).collect();
        say(format_args!("aiocp: {source} -> {destination}: {}{remarks}", self.tally));
    }

    /// What is not as asked for at one end.
    fn remark(&self, side: &Side, args: &Args) -> Option<String> {
        let served = side.served.as_ref()?;
        let backend = served.backend.unwrap_or("nothing");
        let reason = served.reason.as_deref().unwrap_or("no reason given");
        let other = args.selection.backend.and_then(Backend::name).is_some_and(|name| name != backend);
        let buffered = args.direct && served.storage && !served.direct;
        if !other && !buffered {
            return None;
        }
        let refused = match &served.direct_refused {
            Some(refused) if buffered => format!(", not direct: {refused}"),
            _ if buffered => ", not direct".to_string(),
            _ => String::new(),
        };
        Some(format!("{} by {backend} ({reason}{refused})", side.path.display()))
    }

    fn json(&self) -> Value {
        let mut object = self.source.json();
        object["bytes"] = json!(self.bytes);
        object["destination"] = self.destination.json();
        if let Some(failure) = &self.failure {
            object["error"] = json!(failure.line);
        }
        object
    }
}

/// The one object for the whole run, on one line. `outcomes` is empty when not even the first copy began.
pub(crate) fn print_json(engine: Option<&Engine>, outcomes: &[Outcome], failure: Option<&Failure>, seconds: f64) {
    let bytes: u64 = outcomes.iter().map(|outcome| outcome.bytes).sum();
    let rate = if seconds > 0.0 { bytes as f64 / f64::from(1 << 20) / seconds } else { 0.0 };
    let tally = engine.map(Tally::of).unwrap_or_default();
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_string(), value);
    put("bytes", json!(bytes));
    put("seconds", json!(seconds));
    put("mib_per_s", json!(rate));
    if let Some(last) = outcomes.last() {
        put("source", last.source.json());
        put("destination", last.destination.json());
    }
    if outcomes.len() > 1 {
        put("sources", outcomes.iter().map(Outcome::json).collect());
    }
    put("served_by", json!(tally.served_by));
    put("fallbacks", json!(tally.fallbacks));
    put("backends", engine.map_or(json!([]), backends::json));
    let first_failure = outcomes.iter().find_map(|outcome| outcome.failure.as_ref());
    if let Some(failure) = failure.or(first_failure) {
        put("error", json!(failure.line));
    }
    say(Value::Object(object));
}
