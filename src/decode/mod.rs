//! From a record to a view, and from a view to pixels: envelopes, image codecs, raw formats, limits.
//!
//! Everything here is pure and fed with bytes from outside, so it promises never to panic on them
//! and never to allocate more than the limits allow. What cannot be read is data too: it comes back
//! with a reject reason and a text that says what was expected and what was found.
//!
//! - [`envelope`]: record -> [`View`](crate::domain::View), cheap, no pixel touched;
//! - [`pixels`]: view -> [`DecodedImage`](crate::domain::DecodedImage), for the threads that may take
//!   long;
//! - [`raw`]: the GenICam pixel formats of `image/x-raw`.

mod bayer;
pub mod envelope;
mod fields;
mod jpeg;
mod limits;
pub mod pixels;
mod png;
pub mod raw;
#[cfg(feature = "scaled-jpeg")]
mod scaled_jpeg;

pub use envelope::{EnvelopeDecoder, EnvelopeSettings};
pub use limits::ImageLimits;
pub use pixels::{PixelError, WantedSize, decode_image, decode_image_at, decode_pixels};
