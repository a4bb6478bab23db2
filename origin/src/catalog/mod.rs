//! What a title, a rail and a page are: the model, its validation, its documents and their surrogate keys. No I/O.
pub mod documents;
pub mod keys;
pub mod model;
pub mod validate;
