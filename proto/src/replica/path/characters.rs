//! Which characters of a name are marks, which belong to the letter before them, and which are
//! invisible.

use std::ops::RangeInclusive;

use unicode_normalization::char::is_combining_mark;

/// Unicode's property `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt), which stays as it
/// is for characters that exist; and the annotations of U+FFF9, which are to be hidden as well.
const INVISIBLE: [RangeInclusive<u32>; 18] = [
    0xad..=0xad,
    0x34f..=0x34f,
    0x61c..=0x61c,
    0x115f..=0x1160,
    0x17b4..=0x17b5,
    0x180b..=0x180f,
    0x200b..=0x200f,
    0x202a..=0x202e,
    0x2060..=0x206f,
    0x3164..=0x3164,
    0xfe00..=0xfe0f,
    0xfeff..=0xfeff,
    0xffa0..=0xffa0,
    0xfff0..=0xfff8,
    0xfff9..=0xfffb,
    0x1bca0..=0x1bca3,
    0x1d173..=0x1d17a,
    0xe0000..=0xe0fff,
];

/// Whether a character shows nothing by itself: a joiner, a space of no width, a change of
/// direction, a filler, a choice of a variant.
pub(super) fn is_invisible(c: char) -> bool {
    INVISIBLE.iter().any(|range| range.contains(&u32::from(c)))
}

/// Whether a character is written on or around the letter before it: an accent, a vowel sign, a
/// tone.
pub(super) fn is_mark(c: char) -> bool {
    is_combining_mark(c)
}
