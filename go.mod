module github.com/optimem/optimem

go 1.26
