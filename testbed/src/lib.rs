//! The test bed: a real Kubernetes control plane and an EC2 emulator, as plain processes on
//! loopback, with a proxy that plays the market and its faults, and a simulator that turns launched
//! instances into nodes, and kubelets that evict pods.
//!
//! It decides nothing about scheduling; it only answers as the real parts do, and keeps a journal of
//! what was asked of them.

pub mod cloud;
pub mod http;
pub mod install;
pub mod plane;
pub mod poll;
pub mod ports;
pub mod pressure;
pub mod process;
pub mod service;
pub mod tools;
