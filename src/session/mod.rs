//! One authenticated client.

pub mod policy;
pub mod token;

pub use policy::Policy;
