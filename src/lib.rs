//! Scopeward: a policy decision service for OAuth scopes.
//!
//! The layers, from the lowest up (a module uses only what is below it): [`scope`] and [`audience`]
//! are the words, [`policy`] is what operators declare, [`decision`] answers questions from it. None
//! of these does I/O, waits, reads a clock or logs. Neither do [`suite`], which runs policy tests,
//! [`replay`], which runs recorded calls, and [`report`], which prints findings for other tools.
//! [`store`] reads policies, [`audit`] keeps the durable log, [`rpc`] converts between the wire and
//! the decisions, [`server`] joins all of it, and [`cli`] is the entry point for people.

pub mod access;
pub mod audience;
pub mod audit;
pub mod authzen;
pub mod backoff;
pub mod budget;
pub mod call;
pub mod cli;
pub mod clients;
pub mod decision;
pub mod difference;
pub mod escape;
pub mod explanation;
pub mod export;
pub mod file;
pub mod gateway;
pub mod hex;
pub mod policy;
pub mod proto;
pub mod replay;
pub mod report;
pub mod rpc;
pub mod scope;
pub mod server;
pub mod short_list;
pub mod status;
pub mod store;
pub mod strict_json;
pub mod suite;
pub mod throttle;
pub mod uri;
