//! Scopeward: a policy decision service for OAuth scopes.
//!
//! The floors, from the ground up (a module uses only what stands below it): [`scope`] and
//! [`audience`] are the words, [`policy`] is what operators declare, [`decision`] answers questions
//! from it. None of these does I/O, waits, reads a clock or logs. [`store`] reads policies, [`rpc`]
//! puts questions and answers on the wire, and [`cli`] is the door for people. Beside the decisions,
//! as pure as they: [`suite`] runs policy tests, [`replay`] runs recorded calls, [`report`] prints
//! findings for other tools.

pub mod audience;
pub mod audit;
pub mod budget;
pub mod call;
pub mod cli;
pub mod decision;
pub mod policy;
pub mod proto;
pub mod replay;
pub mod report;
pub mod rpc;
pub mod scope;
pub mod server;
pub mod status;
pub mod store;
pub mod suite;
