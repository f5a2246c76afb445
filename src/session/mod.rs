//! One authenticated client.

pub mod content;
pub mod policy;
pub mod token;

pub use policy::Policy;
