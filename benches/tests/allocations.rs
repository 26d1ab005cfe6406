//! How often the hot paths of the wire allocate: numbers that no busy machine changes.

use allocation_counter::measure;
use fcp_common::transfer::{Assembler, digest};
use fcp_proto::frame::{self, HEAD_LEN};
use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Block, BlockDigest, Data, Whole, put_data_head, put_whole_head};
use fcp_proto::{FileId, Flag};

/// Content bytes of a DATA frame, as the engine cuts them.
const PIECE: usize = 60 << 10;

#[test]
fn making_and_checking_content_frames_allocates_nothing() {
    let content = vec![5u8; PIECE];
    let mut framed = vec![0; Data::HEAD];
    framed.extend_from_slice(&content);
    let mut bytes = Vec::new();
    frame::encode(Flag::DATA, &framed, &mut bytes);
    let made = measure(|| {
        put_data_head(&mut [0; HEAD_LEN + Data::HEAD], FileId(1), 0, &content);
        put_whole_head(&mut [0; HEAD_LEN + Whole::HEAD], FileId(1), digest(&content), &content);
    });
    let checked = measure(|| {
        let (frame, _) = frame::decode(&bytes).expect("whole").expect("right");
        assert!(Data::decode(frame.payload).is_ok());
    });
    assert_eq!((made.count_total, checked.count_total), (0, 0));
}

#[test]
fn a_block_of_eighteen_frames_allocates_five_times() {
    let content = vec![5u8; BLOCK as usize];
    let block = Block { file: FileId(1), offset: 0, len: BLOCK as u32 };
    let end = BlockDigest { block, digest: digest(&content) };
    let mut assembler = Assembler::default();
    let used = measure(|| {
        for (i, piece) in content.chunks(PIECE).enumerate() {
            let at = i * PIECE;
            let data = Data { file: FileId(1), offset: at as u64, bytes: piece };
            assembler.handle_data(&data, at..at + piece.len()).expect("in order");
        }
        assert!(assembler.handle_block(&end, &content).expect("whole").1);
    });
    // The list of pieces grows by doubling (4, 8, 16, 32), and the hash has a buffer.
    assert!(used.count_total <= 5, "{} allocations", used.count_total);
}
