//! JSON bodies: requests in, values out.
