//! Every figure the project promises, one program an area.
