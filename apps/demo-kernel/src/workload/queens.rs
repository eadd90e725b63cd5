//! Queens on a board, by backtracking: deep recursion.

use alloc::string::String;

const SIZE: u32 = 9;

/// In how many ways they fit.
pub(super) fn run() -> Result<u64, String> {
    Ok(place(0, 0, 0, 0))
}

/// Places queens from `row` on; the sets are of columns, and of diagonals as they meet this row.
#[inline(never)]
fn place(row: u32, columns: u32, left: u32, right: u32) -> u64 {
    if row == SIZE {
        return 1;
    }
    let mut free = free_columns(columns | left | right);
    let mut ways = 0;
    while free != 0 {
        let queen = lowest(free);
        free ^= queen;
        ways += place(row + 1, columns | queen, (left | queen) << 1, (right | queen) >> 1);
    }
    ways
}

#[inline(never)]
const fn free_columns(taken: u32) -> u32 {
    !taken & ((1 << SIZE) - 1)
}

#[inline(never)]
const fn lowest(set: u32) -> u32 {
    set & set.wrapping_neg()
}
