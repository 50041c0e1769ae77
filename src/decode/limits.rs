//! How large an image may be. Checked on sizes that are declared, before memory is taken for them.

/// The largest image that is accepted; anything larger is rejected as `too_large`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of a record's value.
    pub max_bytes: usize,
    /// Width in pixels.
    pub max_width: u32,
    /// Height in pixels.
    pub max_height: u32,
    /// Width times height. Decoding takes up to eight bytes a pixel for a moment.
    pub max_pixels: u64,
}

impl Default for ImageLimits {
    /// 16 MiB and 64 megapixels (8192 x 8192): above the largest area-scan sensors in common use on
    /// lines, and at most 512 MiB for one image being decoded.
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_width: 16_384,
            max_height: 16_384,
            max_pixels: 8_192 * 8_192,
        }
    }
}

impl ImageLimits {
    /// Says what is wrong with a value of `bytes`, if it is too long.
    pub(crate) fn check_bytes(&self, bytes: usize) -> Result<(), String> {
        if bytes > self.max_bytes {
            return Err(format!(
                "expected a value of at most `{}` bytes, found `{bytes}`",
                self.max_bytes
            ));
        }
        Ok(())
    }

    /// Says what is wrong with an image of `width` by `height`, if it is too large.
    pub(crate) fn check_dimensions(&self, width: u32, height: u32) -> Result<(), String> {
        if width > self.max_width || height > self.max_height {
            return Err(format!(
                "expected an image of at most `{}x{}` pixels, found `{width}x{height}`",
                self.max_width, self.max_height
            ));
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            return Err(format!(
                "expected an image of at most `{}` pixels, found `{width}x{height}` = `{pixels}`",
                self.max_pixels
            ));
        }
        Ok(())
    }
}
