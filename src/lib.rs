//! Scopeward: a policy decision service for OAuth scopes.
//!
//! The floors, from the ground up (a module uses only what stands below it): [`scope`] and
//! [`audience`] are the words, [`policy`] is what operators declare, [`decision`] answers questions
//! from it. None of these does I/O, waits, reads a clock or logs. [`rpc`] puts them on the wire.

pub mod audience;
pub mod decision;
pub mod policy;
pub mod rpc;
pub mod scope;
pub mod server;
pub mod status;
pub mod store;
