//! The integration tests: one binary, one file for each feature.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that meets something unexpected has failed, and says where"
)]

mod access;
mod admin;
mod agreement;
mod audit;
mod audit_store;
mod bad_policies;
mod calls;
mod certs;
mod cli;
mod client_record;
mod collector;
mod connections;
mod console;
mod core;
mod decisions;
mod deploy;
mod deploy_monitoring;
mod describe;
mod descriptors;
mod direct;
mod docs;
mod drain;
mod findings;
mod gateway;
mod harness;
mod http_api;
mod idle;
mod last_good;
mod layering;
mod limits;
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod openmetrics;
mod peer;
mod postgres;
mod pressure;
mod records;
mod reference;
mod reload;
mod segments;
mod service;
mod service_manager;
mod shadow;
mod slips;
mod soak;
mod suites;
mod supervisor;
mod tls;
mod tls_offers;
mod token;
mod tools;
mod unknown_audiences;
mod uris;
