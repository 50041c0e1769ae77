//! What must hold of a PNG before its decoder sees it.

use super::pixels::PixelError;
use crate::domain::RejectReason;

/// Length of the signature, and of a chunk's length, type and check sum.
const SIGNATURE_BYTES: usize = 8;
const CHECK_SUM_BYTES: usize = 4;

/// Refuses a palette that is not made of whole colours: `png` 0.18.1 panics on one (image-rs/image-png
/// issue 694).
pub(super) fn check_palette(bytes: &[u8]) -> Result<(), PixelError> {
    let mut rest = bytes.get(SIGNATURE_BYTES..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, kind @ ..] = head;
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        match kind {
            b"PLTE" if !length.is_multiple_of(3) => {
                let message = format!(
                    "expected a palette of 3 bytes a colour in `image/png`, found `{length}` bytes"
                );
                return Err(PixelError::new(RejectReason::Decode, message));
            }
            b"IDAT" => break,
            _ => {}
        }
        let next = length.saturating_add(CHECK_SUM_BYTES);
        rest = after.get(next..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{ImageLimits, decode_image};
    use crate::domain::ImageEncoding;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], kind, data, &[0; CHECK_SUM_BYTES]].concat()
    }

    fn with_palette(bytes: usize) -> Vec<u8> {
        let signature = b"\x89PNG\r\n\x1a\n".to_vec();
        let header = chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 3, 0, 0, 0]);
        let palette = chunk(b"PLTE", &vec![7; bytes]);
        [signature, header, palette, chunk(b"IDAT", &[1, 2])].concat()
    }

    #[test]
    fn a_palette_has_whole_colours() {
        for bytes in [4, 5, 535] {
            let png = with_palette(bytes);
            let limits = ImageLimits::default();
            let error = decode_image(ImageEncoding::Png, &png, &limits).unwrap_err();
            assert_eq!(error.reason, RejectReason::Decode);
            let expected = format!("found `{bytes}` bytes");
            assert!(error.message.contains(&expected), "{error}");
        }
        assert_eq!(check_palette(&with_palette(6)), Ok(()));
    }

    #[test]
    fn chunks_that_claim_more_than_there_is_end_the_search() {
        let png = with_palette(6);
        for length in 0..png.len() {
            assert_eq!(check_palette(&png[..length]), Ok(()));
        }
        let endless = [&b"\x89PNG\r\n\x1a\n"[..], &[0xff; 8]].concat();
        assert_eq!(check_palette(&endless), Ok(()));
    }
}
