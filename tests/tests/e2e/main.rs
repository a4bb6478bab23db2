//! The end-to-end suite: one binary, one module a subject. Each test has processes and folders of its own.
mod accounts;
mod bodies;
mod cuts;
mod faults;
mod gateway;
mod hits;
mod intake;
mod malformed;
mod passing;
mod proxy;
mod receipts;
mod replica;
mod resilience;
mod rules;
mod sample;
