package contract

import "github.com/optimem/optimem/internal/strict"

// An Error says what is wrong with one field of a document.
type Error = strict.Error
