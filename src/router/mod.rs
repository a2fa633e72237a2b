//! (4) Which backend serves a request, and what its answer means.
//!
//! ```text
//! facts.rs     what is known of a descriptor, gathered once      (system calls, no decisions)
//! policy.rs    facts + operation + settings → a plan             (decisions, no system calls)
//! fallback.rs  error + where it was seen → what to do            (decisions, no system calls)
//! learned.rs   what a file has taught us since                   (atomics)
//! strict.rs    what is said where nobody may fall back           (words)
//! ```

pub(crate) mod facts;
pub(crate) mod fallback;
pub(crate) mod learned;
pub(crate) mod policy;
pub(crate) mod strict;
