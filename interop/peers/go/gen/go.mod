module sluice/gen/go

go 1.26.0
