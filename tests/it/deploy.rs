//! What is under `deploy/`: it is made, checked and started as an operator would.

mod chart;
mod container;
mod deb;
mod manifest;
mod package;
mod pod;
mod systemd;
