//! What an OAuth request says about scopes, and what it becomes: functions from bytes to bytes, or to a refusal.
//!
//! A gateway stands before an authorization server that reads the same bytes with a parser of its own. So nothing passes here
//! that two parsers in common use read differently where it matters: which endpoint a request is for ([`path`], [`endpoint`]),
//! which scope, client and redirect URI a query or a form names ([`form`], [`object`]), what a client registers
//! ([`metadata`]), and where the endpoints are ([`discovery`]). What does not matter keeps its bytes.
//!
//! Knows no policy, no socket and no record of clients.

pub mod discovery;
pub mod endpoint;
mod fold;
pub mod form;
pub mod kind;
pub mod metadata;
pub mod object;
pub mod path;
