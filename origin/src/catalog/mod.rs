//! What the catalogue is, without I/O: its things, what they may hold, what is read of them, and which keys purge it.
pub mod countries;
pub mod documents;
pub mod keys;
pub mod maturity;
pub mod model;
pub mod read;
pub mod similar;
pub mod validate;
