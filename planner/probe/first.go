package probe

import "context"

// First reads the cards of the first reader that sees one. An error of a reader ends the search, so that a
// broken card is not taken for a missing one. Where no reader sees a card, the notes are those of all readers.
func First(readers ...CardReader) CardReader { return first(readers) }

type first []CardReader

func (f first) ReadCards(ctx context.Context) ([]Card, Notes, error) {
	var all Notes
	for _, r := range f {
		cards, notes, err := r.ReadCards(ctx)
		if err != nil || len(cards) > 0 {
			return cards, notes, err
		}
		all = append(all, notes...)
	}
	return []Card{}, all, nil
}
