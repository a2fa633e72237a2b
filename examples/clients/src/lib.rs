//! Two real clients of polyaio, as libraries: what a database and a file format ask of storage, served by it.
//!
//! The programs in `src/bin/` fill, check and read real files with them, and say which backends have served.

#![deny(unsafe_code)]

/// A `redb` database's storage: blocking calls, from any thread.
pub mod storage;

/// A Parquet file's bytes: asynchronous, many ranges at a time.
pub mod columns;
