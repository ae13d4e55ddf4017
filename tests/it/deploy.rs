//! What is under `deploy/`: it is made, checked and started as an operator would.

mod chart;
mod manifest;
mod pod;
mod systemd;
