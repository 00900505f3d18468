//! The opening of a string: its form, and the length of what follows.

use super::TERMS_BYTES_MAX;

/// How many bytes the opening has.
pub(super) const OPENING_LEN: usize = 2;

/// How a string is written, and how long its content or its terms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The terms stand without the names of their fields; `content` is the length of the whole
    /// content.
    Short { content: usize },
    /// The terms stand as they were signed; `terms` is their length.
    Long { terms: usize },
}

impl Form {
    /// The bits of the opening that tell the form, and those of [`Form::Short`].
    pub(super) const BITS: u16 = 0xc000;
    pub(super) const SHORT: u16 = 0x8000;

    /// Reads an opening; none where the form is of another version, or the length above its bound.
    pub(super) fn of(opening: [u8; OPENING_LEN]) -> Option<Self> {
        let opening = u16::from_be_bytes(opening);
        let length = usize::from(opening & !Self::BITS);
        let fits = length <= TERMS_BYTES_MAX;
        match opening & Self::BITS {
            Self::SHORT => fits.then_some(Self::Short { content: length }),
            0 => fits.then_some(Self::Long { terms: length }),
            _ => None,
        }
    }

    /// The opening of this form; none where the length is above its bound.
    pub(super) fn opening(self) -> Option<[u8; OPENING_LEN]> {
        let (form, length) = match self {
            Self::Short { content } => (Self::SHORT, content),
            Self::Long { terms } => (0, terms),
        };
        let length = u16::try_from(length).ok().filter(|_| length <= TERMS_BYTES_MAX)?;
        Some((form | length).to_be_bytes())
    }
}
