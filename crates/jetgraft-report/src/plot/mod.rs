//! Drawing: axes, labels, layers, one SVG writer, PNG.

pub mod colour;
pub mod font;
pub mod frame;
pub mod png;
pub mod scale;
pub mod scene;
pub mod svg;
pub mod text;
