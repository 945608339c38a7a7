'use strict';
// Says under a picture what the box is that was pointed at, tapped, or reached with the arrow keys.
for (const figure of document.querySelectorAll('figure.boxes')) {
	const tip = figure.querySelector('.tip');
	const boxes = Array.from(figure.querySelectorAll('.lane i'));
	let at = -1;
	const tell = (box) => {
		if (at >= 0) boxes[at].classList.remove('on');
		at = boxes.indexOf(box);
		box.classList.add('on');
		tip.textContent = box.title;
		tip.classList.add('told');
	};
	const near = (lane, x) => {
		let best = null, distance = 12;
		for (const box of lane.children) {
			const place = box.getBoundingClientRect();
			const away = Math.max(place.left - x, x - place.right, 0);
			if (away < distance) { best = box; distance = away; }
		}
		return best;
	};
	const point = (event) => {
		const lane = event.target.closest('.lane');
		const box = lane && (event.target === lane ? near(lane, event.clientX) : event.target);
		if (box) tell(box);
	};
	figure.addEventListener('pointermove', point);
	figure.addEventListener('click', point);
	figure.addEventListener('keydown', (event) => {
		const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
		if (!step || !boxes.length) return;
		event.preventDefault();
		tell(boxes[Math.min(boxes.length - 1, Math.max(0, at + step))]);
	});
}
