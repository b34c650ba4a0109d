//! From SVG to pixels, with `resvg`.

use resvg::{tiny_skia, usvg};

use crate::error::ReportError;

/// Largest side of a PNG in pixels.
const MAX_SIDE: f64 = 16_384.0;

/// Draws a stand-alone SVG. `scale` is in pixels per unit: 2 for screens and slides, 4 for print.
///
/// # Errors
/// [`ReportError::Raster`] where the picture would be larger than 16384 pixels on a side, or the SVG is not one.
pub fn render(figure: &str, svg: &str, scale: f64) -> Result<Vec<u8>, ReportError> {
    let fault = |width: u32, height: u32, message: String| ReportError::Raster {
        figure: figure.to_owned(),
        width,
        height,
        message,
    };
    // Text is outlines already, so no font is looked up on this machine.
    let tree =
        usvg::Tree::from_str(svg, &usvg::Options::default()).map_err(|e| fault(0, 0, e.to_string()))?;
    let size = tree.size();
    let (width, height) =
        ((f64::from(size.width()) * scale).ceil(), (f64::from(size.height()) * scale).ceil());
    let (w, h) = (width as u32, height as u32);
    if !(scale > 0.0 && width <= MAX_SIDE && height <= MAX_SIDE) {
        return Err(fault(w, h, format!("the scale {scale} gives no side from 1 to {MAX_SIDE} pixels")));
    }
    let mut pixels =
        tiny_skia::Pixmap::new(w, h).ok_or_else(|| fault(w, h, "no memory for the pixels".to_owned()))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale as f32, scale as f32), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| fault(w, h, e.to_string()))
}
