//! Calls that other systems document, translated: thin, and without rules of their own.

pub mod admin;
pub mod api;
pub mod config;
