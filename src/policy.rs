//! placeholder
pub mod finding;
pub mod yaml;
