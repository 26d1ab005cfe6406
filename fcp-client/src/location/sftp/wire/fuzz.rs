//! What a fuzzer calls: any bytes in; a panic out when the codec breaks a promise.
