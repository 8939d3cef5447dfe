//! The pages of a column, checked for what the library takes for granted.

use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::ColumnDescriptor;

/// Bytes of a length before texts and levels.
const LENGTH: usize = size_of::<u32>();

/// Refuses pages that would stop the process, where the library takes damage for a mistake in the program.
pub(super) struct Checked {
    pages: Box<dyn PageReader>,
    has_dictionary: bool,
    holds_texts: bool,
    /// Bytes of a value, but for texts.
    width: Option<usize>,
    /// Whether levels of repetition, and of definition, come before the values.
    levels: [bool; 2],
}

impl Checked {
    pub(super) fn new(pages: Box<dyn PageReader>, column: &ColumnDescriptor) -> Self {
        Self {
            pages,
            has_dictionary: false,
            holds_texts: column.physical_type() == Type::BYTE_ARRAY,
            width: match column.physical_type() {
                Type::INT32 | Type::FLOAT => Some(4),
                Type::INT64 | Type::DOUBLE => Some(8),
                // Of other types only bits and texts are read.
                _ => None,
            },
            levels: [column.max_rep_level() > 0, column.max_def_level() > 0],
        }
    }

    /// Where the values of a page begin.
    fn begin(&self, page: &Page) -> Result<usize> {
        match page {
            Page::DictionaryPage { .. } => Ok(0),
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let begin = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                if begin <= buf.len() { Ok(begin) } else { Err(damaged()) }
            }
            Page::DataPage { buf, def_level_encoding, rep_level_encoding, .. } => {
                let mut begin = 0;
                for (is_there, encoding) in
                    self.levels.into_iter().zip([rep_level_encoding, def_level_encoding])
                {
                    if is_there && *encoding != Encoding::RLE {
                        return Err(ParquetError::General(format!("levels as {encoding} are not supported")));
                    }
                    if is_there {
                        begin += LENGTH + length_at(buf, begin)?;
                    }
                }
                Ok(begin)
            }
        }
    }
}

fn damaged() -> ParquetError {
    ParquetError::General("a page ends in the middle of a value: it is damaged".to_owned())
}

/// The length that is said at a place, if so many bytes follow.
fn length_at(bytes: &[u8], place: usize) -> Result<usize> {
    let rest = bytes.get(place..).unwrap_or_default();
    let (length, rest) = rest.split_first_chunk::<LENGTH>().ok_or_else(damaged)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length <= rest.len() { Ok(length) } else { Err(damaged()) }
}

/// How many texts there are up to the end, or up to so many.
fn count_texts(bytes: &[u8], most: usize) -> Result<usize> {
    let (mut place, mut count) = (0, 0);
    while place < bytes.len() && count < most {
        place += LENGTH + length_at(bytes, place)?;
        count += 1;
    }
    Ok(count)
}

impl PageReader for Checked {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(mut page) = self.pages.get_next_page()? else { return Ok(None) };
        let needs_dictionary =
            matches!(page.encoding(), Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
        if page.is_dictionary_page() {
            self.has_dictionary = true;
        } else if needs_dictionary && !self.has_dictionary {
            return Err(ParquetError::General("a page needs a dictionary that is not there".to_owned()));
        }
        let begin = self.begin(&page)?;
        if let Some(width) = self.width
            && page.encoding() == Encoding::BYTE_STREAM_SPLIT
            && (page.buffer().len() - begin) / width < page.num_values() as usize
        {
            let problem = "a page holds fewer values than rows: it is damaged, or some are null";
            return Err(ParquetError::General(problem.to_owned()));
        }
        if self.holds_texts && (page.is_dictionary_page() || page.encoding() == Encoding::PLAIN) {
            let wanted = page.num_values() as usize;
            let found = count_texts(&page.buffer()[begin..], wanted)?;
            let (Page::DataPage { buf, .. }
            | Page::DataPageV2 { buf, .. }
            | Page::DictionaryPage { buf, .. }) = &mut page;
            if found < wanted {
                // Nulls have no text. Whoever claims to have none reads empty ones.
                let mut filled = buf.to_vec();
                filled.resize(filled.len() + (wanted - found) * LENGTH, 0);
                *buf = filled.into();
            }
        }
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for Checked {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
