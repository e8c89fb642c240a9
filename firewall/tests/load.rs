//! The kernel takes the programs.
use firewall::datapath::{BENCH_OBJECT, OBJECT, load::load};

#[test]
fn every_program_is_verified() {
    for object in [OBJECT, BENCH_OBJECT] {
        match load(object, 0) {
            Ok(loaded) => {
                println!("maps {:?}", loaded.maps_time);
                for one in loaded.verified {
                    println!("{:<14} {:>8?} {:?}", one.name, one.instructions, one.time);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}
