//! REST routes: requests to commands, outcomes to responses.
