//! The recorded answers of a real server, and laws that hold for every kind.

mod laws;
mod recordings;
mod updates;
