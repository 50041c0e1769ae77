//! Anomaly maps as image files.

use std::path::{Path, PathBuf};
use std::{fs, io};

use image::{ExtendedColorType, ImageError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::MapColours;
use crate::cli::heat::level_colour;
use crate::domain::EncodedMap;
use crate::schema::result::{Map, PartResult};
use crate::scoring::MapError;
use crate::scoring::maps::decode_levels;

/// What may stand in a file name as it is; no dot, so that no name is `..` or hidden.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// File systems take 255 bytes a name; this leaves room for the extension.
const MAX_NAME_BYTES: usize = 200;

/// Why maps cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The folder cannot be made.
    #[error("folder `{}` cannot be made: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("map `{}` cannot be written: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The system's own words.
        source: ImageError,
    },
}

/// Writes each map of the result to `<directory>/<part>/<view>.png`, over an earlier one.
///
/// Part and view are percent-encoded where a file name could not hold them. A map that cannot be
/// decoded is logged and skipped.
pub(super) fn save(
    result: &PartResult,
    directory: &Path,
    colours: MapColours,
) -> Result<(), SaveError> {
    let maps: Vec<(&str, &Map)> = result
        .views
        .iter()
        .filter_map(|view| Some((view.view.as_str(), view.map.as_ref()?)))
        .collect();
    if maps.is_empty() {
        return Ok(());
    }
    let folder = directory.join(file_name(&result.part_id, &result.result_id));
    fs::create_dir_all(&folder).map_err(|source| SaveError::Folder {
        folder: folder.clone(),
        source,
    })?;
    for (index, (view, map)) in maps.into_iter().enumerate() {
        let file = folder.join(file_name(view, &format!("view-{index}")) + ".png");
        match picture(map, colours) {
            Ok((pixels, colour_type)) => {
                image::save_buffer(&file, &pixels, map.width, map.height, colour_type)
                    .map_err(|source| SaveError::File { file, source })?;
            }
            Err(error) => {
                tracing::warn!(part_id = result.part_id, view, %error, "map is not saved");
            }
        }
    }
    Ok(())
}

/// The name, encoded; the substitute where that is empty or too long.
fn file_name(name: &str, substitute: &str) -> String {
    let encoded = utf8_percent_encode(name, FILE_NAME).to_string();
    if encoded.is_empty() || encoded.len() > MAX_NAME_BYTES {
        return utf8_percent_encode(substitute, FILE_NAME).to_string();
    }
    encoded
}

fn picture(map: &Map, colours: MapColours) -> Result<(Vec<u8>, ExtendedColorType), MapError> {
    let levels = decode_levels(&EncodedMap::from(map))?;
    Ok(match colours {
        MapColours::Grey => (levels, ExtendedColorType::L8),
        MapColours::Heat => (
            levels.into_iter().flat_map(level_colour).collect(),
            ExtendedColorType::Rgb8,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_folder() {
        assert_eq!(
            file_name("../../etc/passwd", "x"),
            "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"
        );
        assert_eq!(file_name("", "r-1"), "r-1");
        assert_eq!(file_name(&"ü".repeat(100), "r-1"), "r-1");
        assert_eq!(file_name("p-0001", "x"), "p-0001");
    }
}
