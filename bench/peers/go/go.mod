module edgewire/bench/peers/go

go 1.19
